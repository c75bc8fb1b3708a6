"""Run config of the stage generation."""

from resources.hardware import Hardware
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig
from synth_assets.stages.generation.spec import MagpieSpec


class MagpieConfig(BudgetConfig, config_of(MagpieSpec)):
    """Overrides of MagpieSpec for one run."""

    def spec_for(self, hardware: Hardware) -> MagpieSpec:
        """Return the settings on a tier with this run's overrides."""
        return hardware.spec(MagpieSpec(), self)
