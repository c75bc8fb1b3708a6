"""Run config of the stage promotion."""

from dataclasses import replace

import dagster as dg
from pydantic import Field

from synth_assets.stages.promotion.decision import PromotionRequest
from synth_assets.stages.promotion.policy import PromotionPolicy


class PromotionConfig(dg.Config):
    """Options of one decision; by default the comparison's candidate is evaluated."""

    version: str | None = Field(
        default=None,
        description="Number, alias or adapter of the version to evaluate instead of the comparison's candidate.",
    )
    approve: bool = Field(
        default=False, description="Approve the version where a guard is inconclusive or approval is required."
    )
    rollback: bool = Field(
        default=False, description="Return to the last version that served, exists and fails no clause."
    )
    force: bool = Field(
        default=False, description="With rollback, version and reason: accept the version although a clause fails."
    )
    reason: str = Field(default="", description="Reason of a rollback.")
    adopt: bool = Field(default=False, description="Evaluate the version that @champion was moved to in MLflow.")
    minimum_effect: float | None = Field(
        default=None, description=f"Smallest gain of the mean score, 0..1. Default: {PromotionPolicy().minimum_effect}."
    )
    alpha: float | None = Field(default=None, description=f"Largest p-value, 0..1. Default: {PromotionPolicy().alpha}.")

    def policy(self) -> PromotionPolicy:
        """Return the policy with this run's overrides."""
        overrides = {"minimum_effect": self.minimum_effect, "alpha": self.alpha}
        return replace(PromotionPolicy(), **{name: value for name, value in overrides.items() if value is not None})

    def request(self) -> PromotionRequest:
        """Return the options as a plain value."""
        return PromotionRequest(
            version=self.version or "",
            approve=self.approve,
            rollback=self.rollback,
            force=self.force,
            reason=self.reason,
            adopt=self.adopt,
            policy=self.policy(),
        )
