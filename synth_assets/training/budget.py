"""What a training may take, and the end of one that would take more."""

from dataclasses import dataclass

from synth_assets.storage.budgets import Limit
from synth_assets.training.callbacks import Curve
from synth_assets.training.errors import TrainingError

JUDGED_FROM_S = 5.0  # what was measured over less says little of the rest
JUDGED_FROM_STEPS = 3


class OverBudgetError(TrainingError):
    """A training would take more than it may."""


@dataclass(frozen=True)
class Budget:
    """Seconds that a training may take; None: as many as it needs. `known_by` says what set them.

    `of_run` says that the limit is one of the whole run, so that the run ends where the training does.
    """

    seconds: float | None = None
    known_by: str = ""
    of_run: bool = False

    def refuse(self, predicted_s: float | None) -> None:
        """OverBudgetError where the prediction is beyond the budget, or nothing of it is left."""
        if self.seconds is not None and self.seconds <= 0:
            raise OverBudgetError(f"{self.known_by} is used up; nothing was trained")
        if self.seconds is not None and predicted_s is not None and predicted_s > self.seconds:
            raise OverBudgetError(
                f"predicted to take {predicted_s:.0f} s, beyond the {self.seconds:.0f} s that {self.known_by} allows; "
                "nothing was trained"
            )

    def check(self, step: int, steps: int, curve: Curve) -> None:
        """OverBudgetError where the steps so far say that all of them exceed the budget."""
        spent = curve.seconds()
        if self.seconds is None or step < JUDGED_FROM_STEPS or spent < min(JUDGED_FROM_S, self.seconds):
            return
        wanted = spent / step * steps
        if wanted > self.seconds:
            raise OverBudgetError(
                f"stopped at step {step} of {steps} after {spent:.0f} s: all steps would take about {wanted:.0f} s, "
                f"more than the {self.seconds:.0f} s that {self.known_by} allows"
            )


UNLIMITED = Budget()


def tighter(own: Budget, limit: Limit | None) -> Budget:
    """Return the training's own budget, or what its run has left where that is less."""
    if limit is None or (own.seconds is not None and own.seconds <= limit.seconds):
        return own
    return Budget(limit.seconds, f"{limit.source} ({limit.remedy})", of_run=True)


def budget_of(max_minutes: float | None, max_cost: float | None, usd_per_hour: float) -> Budget:
    """The tighter of two limits: minutes of wall time, and US dollars at the tier's price."""
    limits = []
    if max_minutes is not None:
        limits.append(Budget(max_minutes * 60, f"max_minutes {max_minutes:g}"))
    if max_cost is not None and usd_per_hour > 0:
        limits.append(Budget(max_cost / usd_per_hour * 3600, f"max_cost {max_cost:g} at {usd_per_hour:g} USD an hour"))
    return min(limits, key=lambda limit: limit.seconds or 0.0, default=UNLIMITED)
