"""Partitions and run configs of the stage efficiency."""

import dagster as dg
from pydantic import Field

from resources.hardware import Hardware
from resources.spec_config import config_of
from synth_assets.stages.efficiency.grid import DEFAULT_SEEDS, VARIANTS, wanted_variants
from synth_assets.stages.efficiency.latencies import LatencySpec

CELLS = dg.StaticPartitionsDefinition(list(VARIANTS))
"""One key per variant, those of the default grid first."""


class VariantConfig(dg.Config):
    """Settings of one run of a variant; settings common to all variants are in the tier's row."""

    force: bool = Field(False, description="Train again although the adapter exists.")


class LatencyConfig(config_of(LatencySpec)):
    """Overrides of LatencySpec for one run."""

    again: str = Field("", description="A new text here repeats latency measurements that are stored already.")

    def spec_for(self, hardware: Hardware) -> LatencySpec:
        """Return the settings on a tier with this run's overrides."""
        return hardware.spec(LatencySpec(), self)


class FrontierConfig(dg.Config):
    """Variants of the study; missing ones are listed in the report."""

    full: bool = Field(False, description="Every combination instead of one-factor sweeps.")
    seeds: int = Field(DEFAULT_SEEDS, description="Trainings of each cell, with seeds 1, 2, ...")
    ranks: list[int] = Field(default_factory=list, description="Only cells of these ranks; empty: all.")

    def variants(self) -> tuple[str, ...]:
        """Return the names of the variants. Raise ValueError for an unknown rank or too many seeds."""
        return wanted_variants(full=self.full, seeds=self.seeds, ranks=self.ranks)
