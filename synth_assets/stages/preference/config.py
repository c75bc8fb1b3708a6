"""Run configs of the stage preference."""

from resources.hardware import Hardware
from resources.spec_config import config_of
from resources.step_meter import BudgetConfig
from synth_assets.stages.preference.candidates import CandidateSpec, OnPolicyCandidateSpec
from synth_assets.stages.preference.pairs import PairSpec


class CandidateConfig(BudgetConfig, config_of(CandidateSpec)):
    """Overrides of CandidateSpec for one run."""

    def spec_for(self, hardware: Hardware, *, on_policy: bool = False) -> CandidateSpec:
        """Return the settings on a tier with this run's overrides; `on_policy` for the responses of an adapter."""
        return hardware.spec(OnPolicyCandidateSpec() if on_policy else CandidateSpec(), self)


class PairConfig(BudgetConfig, config_of(PairSpec, leave_out=["template_tokens"])):
    """Overrides of PairSpec for one run."""

    def spec_for(self, hardware: Hardware) -> PairSpec:
        """Return the settings on a tier with this run's overrides."""
        return hardware.spec(PairSpec(), self)
