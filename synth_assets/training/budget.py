"""Limit the time of a training: reject or stop trainings that would exceed their budget."""

from dataclasses import dataclass

from synth_assets.storage.budgets import Limit
from synth_assets.training.callbacks import Curve
from synth_assets.training.errors import TrainingError

MIN_MEASURED_S = 5.0  # shorter measurements do not predict the total
MIN_MEASURED_STEPS = 3


class OverBudgetError(TrainingError):
    """A training would exceed its budget."""


@dataclass(frozen=True)
class Budget:
    """Time limit of a training in seconds; None for no limit. `source` names the setting it comes from.

    With `of_run` the limit belongs to the whole run, so exceeding it ends the run as well.
    """

    seconds: float | None = None
    source: str = ""
    of_run: bool = False

    def check_prediction(self, predicted_s: float | None) -> None:
        """Raise OverBudgetError if the predicted time exceeds the budget, or if the budget is used up."""
        if self.seconds is not None and self.seconds <= 0:
            raise OverBudgetError(f"{self.source} is used up; training did not start")
        if self.seconds is not None and predicted_s is not None and predicted_s > self.seconds:
            raise OverBudgetError(
                f"training is predicted to take {predicted_s:.0f} s, more than the {self.seconds:.0f} s allowed by "
                f"{self.source}; training did not start"
            )

    def check(self, step: int, steps: int, curve: Curve) -> None:
        """Raise OverBudgetError if the total time extrapolated from the steps so far exceeds the budget."""
        elapsed = curve.seconds()
        if self.seconds is None or step < MIN_MEASURED_STEPS or elapsed < min(MIN_MEASURED_S, self.seconds):
            return
        total = elapsed / step * steps
        if total > self.seconds:
            raise OverBudgetError(
                f"stopped at step {step} of {steps} after {elapsed:.0f} s: all steps would take about {total:.0f} s, "
                f"more than the {self.seconds:.0f} s allowed by {self.source}"
            )


UNLIMITED = Budget()


def tighter(budget: Budget, limit: Limit | None) -> Budget:
    """Return the training's budget, or the run's remaining time if that is less."""
    if limit is None or (budget.seconds is not None and budget.seconds <= limit.seconds):
        return budget
    return Budget(limit.seconds, f"{limit.source} ({limit.remedy})", of_run=True)


def budget_of(max_minutes: float | None, max_cost: float | None, usd_per_hour: float) -> Budget:
    """Return the tighter of two limits: minutes of wall time, and US dollars at the tier's price."""
    limits = []
    if max_minutes is not None:
        limits.append(Budget(max_minutes * 60, f"max_minutes {max_minutes:g}"))
    if max_cost is not None and usd_per_hour > 0:
        limits.append(Budget(max_cost / usd_per_hour * 3600, f"max_cost {max_cost:g} at {usd_per_hour:g} USD an hour"))
    return min(limits, key=lambda limit: limit.seconds or 0.0, default=UNLIMITED)
