"""Run configs of the stage evaluation."""

from resources.hardware import Hardware
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig
from synth_assets.evals.scoring import EvaluationSpec
from synth_assets.stages.evaluation.profiles import PreferenceSpec


class EvaluationConfig(BudgetConfig, config_of(EvaluationSpec)):
    """Overrides of EvaluationSpec for one run."""

    def spec_for(self, hardware: Hardware) -> EvaluationSpec:
        """Return the settings on a tier with this run's overrides."""
        return hardware.spec(EvaluationSpec(), self)


class ComparisonConfig(config_of(PreferenceSpec)):
    """Overrides of PreferenceSpec for one run."""

    def spec_for(self, hardware: Hardware) -> PreferenceSpec:
        """Return the settings on a tier with this run's overrides."""
        return hardware.spec(PreferenceSpec(), self)
