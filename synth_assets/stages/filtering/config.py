"""Run configs of the stage filtering."""

from resources.embeddings import Embeddings
from resources.hardware import Hardware
from resources.spec_config import config_of
from synth_assets.stages.filtering.semantic import Semantics, SemanticSpec
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec


class FilterConfig(config_of(FilterSpec, SemanticSpec)):
    """Overrides of FilterSpec and SemanticSpec for one run."""

    def spec_for(self, hardware: Hardware) -> FilterSpec:
        """Return the thresholds on a tier with this run's overrides."""
        return hardware.spec(FilterSpec(), self)

    def semantics(self, embeddings: Embeddings, hardware: Hardware) -> Semantics | None:
        """Return the embedding model with the thresholds of the semantic rules; None if the semantic layer is off."""
        embedder = embeddings.embedder()
        return Semantics(embedder, hardware.spec(SemanticSpec(), self)) if embedder else None


class SplitConfig(config_of(SplitSpec)):
    """Overrides of SplitSpec for one run."""

    def spec_for(self, hardware: Hardware) -> SplitSpec:
        """Return the settings of the split on a tier with this run's overrides."""
        return hardware.spec(SplitSpec(), self)
