"""Run configs of the stage filtering."""

from resources.hardware import Hardware
from resources.spec_config import config_of
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec


class FilterConfig(config_of(FilterSpec)):
    """Overrides of FilterSpec for one run."""

    def spec_for(self, hardware: Hardware) -> FilterSpec:
        """Return the thresholds on a tier with this run's overrides."""
        return hardware.spec(FilterSpec(), self)


class SplitConfig(config_of(SplitSpec)):
    """Overrides of SplitSpec for one run."""

    def spec_for(self, hardware: Hardware) -> SplitSpec:
        """Return the settings of the split on a tier with this run's overrides."""
        return hardware.spec(SplitSpec(), self)
