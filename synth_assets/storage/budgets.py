"""Limits on what a step and its run may take, looked at between blocks of work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MINUTE_S = 60.0


class BudgetError(RuntimeError):
    """Work ended because its limit is reached; the message says which, what is done and how to go on."""


@dataclass(frozen=True)
class Limit:
    """Seconds that are left from the start of a step; `source` says what set them and `remedy` what raises them."""

    seconds: float
    source: str
    remedy: str


class WorkBudget:
    """The limits of one step, counted from when this was made."""

    def __init__(self, limits: Sequence[Limit] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """Start to count; without limits nothing is ever refused."""
        self.limits = tuple(limits)
        self._clock = clock
        self._started = clock()

    def spent_s(self) -> float:
        """Return the seconds since the step began."""
        return self._clock() - self._started

    def tightest(self) -> Limit | None:
        """Return the limit that is reached first."""
        return min(self.limits, key=lambda limit: limit.seconds, default=None)

    def check(self, done: str, next_s: float = 0.0) -> None:
        """Refuse to go on where the next piece of work would end beyond a limit.

        Args:
            done: what exists by now, such as "640 of 1,536 instructions are made".
            next_s: what the next piece is expected to take.

        Raises:
            BudgetError: it would; everything that was finished is kept.
        """
        limit = self.tightest()
        spent = self.spent_s()
        if limit is None or (spent < limit.seconds and spent + next_s <= limit.seconds):
            return
        reached = "is used up" if spent >= limit.seconds else f"leaves {limit.seconds - spent:.0f} s"
        expected = f" and the next part takes about {next_s:.0f} s" if next_s and spent < limit.seconds else ""
        raise BudgetError(
            f"stopped after {spent:.0f} s: {limit.source} {reached}{expected}. {done}. What is finished is kept; "
            f"{limit.remedy}, and run again to go on"
        )


def step_limits(max_minutes: float | None, max_cost: float | None, usd_per_hour: float, step: str) -> list[Limit]:
    """Return the limits that a step's configuration sets: minutes of wall time, and US dollars at the tier's price.

    Raises:
        ValueError: a limit is not above 0.
    """
    return _limits(max_minutes, max_cost, usd_per_hour, 0.0, ("", f"raise {step}.max_", f" of {step}"))


def run_limits(max_minutes: float | None, max_cost: float | None, usd_per_hour: float, spent_s: float) -> list[Limit]:
    """Return what a run's limits leave to a step that begins `spent_s` after it; ValueError as in `step_limits`."""
    return _limits(max_minutes, max_cost, usd_per_hour, spent_s, ("the run's ", "raise --max-", ""))


def _limits(
    max_minutes: float | None, max_cost: float | None, usd_per_hour: float, spent_s: float, words: tuple[str, str, str]
) -> list[Limit]:
    of, remedy, where = words
    limits = []
    for name, value in (("max_minutes", max_minutes), ("max_cost", max_cost)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value:g}")
    if max_minutes is not None:
        source = f"{of}max_minutes {max_minutes:g}{where}"
        limits.append(Limit(max_minutes * MINUTE_S - spent_s, source, f"{remedy}minutes"))
    if max_cost is not None and usd_per_hour > 0:
        source = f"{of}max_cost {max_cost:g} USD{where} at {usd_per_hour:g} USD an hour"
        limits.append(Limit(max_cost / usd_per_hour * 3600 - spent_s, source, f"{remedy}cost"))
    return limits
