"""Run config of the stage reward_training."""

from pydantic import Field

from resources.hardware import Hardware
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig
from synth_assets.training.plan import CHECKPOINT_EVERY_S
from synth_assets.training.reward import UNUSED_SETTINGS
from synth_assets.training.specs import RewardSpec

HELD_OUT_SHARE = 0.2


class RewardTrainingConfig(BudgetConfig, config_of(RewardSpec, leave_out=UNUSED_SETTINGS)):
    """Settings of one training of a reward model."""

    held_out_share: float = Field(
        HELD_OUT_SHARE, gt=0, lt=1, description="Share of the pairs that measure the accuracy instead of training."
    )
    force: bool = Field(False, description="Train again although the reward model exists.")
    checkpoint_every_s: float = Field(CHECKPOINT_EVERY_S, ge=0, description="Seconds between checkpoints.")

    def spec_for(self, hardware: Hardware) -> RewardSpec:
        """Return the settings on a tier with this run's overrides."""
        return hardware.spec(RewardSpec(), self)
