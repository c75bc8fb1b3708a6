"""Time and cost limits of a step and its run, checked between blocks of work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MINUTE_S = 60.0


class BudgetError(RuntimeError):
    """The budget of a step or run is used up; the message says which one, what is done and how to continue."""


@dataclass(frozen=True)
class Limit:
    """A limit in seconds from the start of a step; `source` names the setting and `remedy` how to raise it."""

    seconds: float
    source: str
    remedy: str


class WorkBudget:
    """The limits of a step, counted from creation."""

    def __init__(self, limits: Sequence[Limit] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """Start counting; without limits, `check` never raises."""
        self.limits = tuple(limits)
        self._clock = clock
        self._started = clock()

    def spent_s(self) -> float:
        """Return the seconds since the start of the step."""
        return self._clock() - self._started

    def tightest(self) -> Limit | None:
        """Return the limit that is reached first, or None."""
        return min(self.limits, key=lambda limit: limit.seconds, default=None)

    def check(self, done: str, next_s: float = 0.0) -> None:
        """Raise BudgetError if the next piece of work would exceed a limit.

        Args:
            done: what is finished, such as "640 of 1,536 instructions are done".
            next_s: expected seconds of the next piece.

        Raises:
            BudgetError: a limit would be exceeded; finished work is kept.
        """
        limit = self.tightest()
        spent = self.spent_s()
        if limit is None or (spent < limit.seconds and spent + next_s <= limit.seconds):
            return
        reached = "is used up" if spent >= limit.seconds else f"leaves {limit.seconds - spent:.0f} s"
        expected = f" and the next part takes about {next_s:.0f} s" if next_s and spent < limit.seconds else ""
        raise BudgetError(
            f"stopped after {spent:.0f} s: {limit.source} {reached}{expected}. {done}. Finished work is kept; "
            f"{limit.remedy}, and run again to continue"
        )


def step_limits(max_minutes: float | None, max_cost: float | None, usd_per_hour: float, step: str) -> list[Limit]:
    """Return the limits of a step's configuration: wall time in minutes, and US dollars at the tier's price.

    Raises:
        ValueError: a limit is not above 0.
    """
    return _limits(max_minutes, max_cost, usd_per_hour, 0.0, ("", f"raise {step}.max_", f" of {step}"))


def run_limits(max_minutes: float | None, max_cost: float | None, usd_per_hour: float, spent_s: float) -> list[Limit]:
    """Return what a run's limits leave to a step that starts `spent_s` seconds after it, as `step_limits` does."""
    return _limits(max_minutes, max_cost, usd_per_hour, spent_s, ("the run's ", "raise --max-", ""))


def _limits(
    max_minutes: float | None, max_cost: float | None, usd_per_hour: float, spent_s: float, texts: tuple[str, str, str]
) -> list[Limit]:
    owner, remedy, scope = texts
    limits = []
    for name, value in (("max_minutes", max_minutes), ("max_cost", max_cost)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value:g}")
    if max_minutes is not None:
        source = f"{owner}max_minutes {max_minutes:g}{scope}"
        limits.append(Limit(max_minutes * MINUTE_S - spent_s, source, f"{remedy}minutes"))
    if max_cost is not None and usd_per_hour > 0:
        source = f"{owner}max_cost {max_cost:g} USD{scope} at {usd_per_hour:g} USD an hour"
        limits.append(Limit(max_cost / usd_per_hour * 3600 - spent_s, source, f"{remedy}cost"))
    return limits
