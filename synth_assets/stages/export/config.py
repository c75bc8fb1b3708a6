"""Run configs of the stage export."""

import dagster as dg
from pydantic import Field

from synth_assets.stages.export.gguf import QUANTISATIONS
from synth_assets.stages.export.gguf_quality import GREEDY_PROMPTS, GREEDY_TOKENS
from synth_assets.stages.export.merge import DTYPES
from synth_assets.stages.export.ollama_export import SMALLEST_GOOD
from synth_assets.stages.export.write import ROWS, GgufOptions


class MergedModelConfig(dg.Config):
    """What to merge."""

    version: str | None = Field(None, description="Number of the version to export instead of the champion.")
    dtype: str = Field(DTYPES[0], description=f"Precision of the merged weights: {' or '.join(DTYPES)}.")


class GgufModelConfig(dg.Config):
    """What to write and to measure."""

    quantisations: list[str] = Field(list(QUANTISATIONS), description=f"Any of {', '.join(QUANTISATIONS)}.")
    prompts: int = Field(
        GREEDY_PROMPTS, ge=1, le=GREEDY_PROMPTS, description="Greedy texts that are compared with Transformers."
    )
    tokens: int = Field(GREEDY_TOKENS, ge=1, description="Maximum number of tokens of each greedy text.")
    rows: int = Field(ROWS, ge=0, description="Maximum number of validation rows of the perplexity.")

    def options(self) -> GgufOptions:
        """Return the options as a plain value."""
        return GgufOptions(tuple(self.quantisations), self.prompts, self.tokens, self.rows)


class OllamaModelConfig(dg.Config):
    """Which GGUF file to use."""

    quantisation: str = Field(
        SMALLEST_GOOD,
        description=f"{', '.join(QUANTISATIONS)}, or {SMALLEST_GOOD}: the smallest that kept quality.",
    )


class HubReleaseConfig(dg.Config):
    """Where to push the release."""

    repository: str = Field("", description="Repository on the hub, owner/name; empty: write the release, do not push.")
    licence: str = Field("", description="Identifier of the licence; empty: that of the base model.")
    private: bool = Field(True, description="Create the repository as a private one.")
