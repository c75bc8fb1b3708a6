from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from synth_assets.stages.efficiency.grid import VARIANTS
from synth_assets.stages.efficiency.latencies import LATENCIES
from synth_assets.stages.efficiency.variants import Variant, variant_of

BASIS = "b" * 16
Make = Callable[..., Variant]

NUMBERS = {
    "validation_loss": 0.5,
    "validation_perplexity": 1.65,
    "test_loss": 0.5,
    "test_perplexity": 1.65,
    "test_tokens": 600.0,
    "score": 0.5,
    "items": 100.0,
    "trainable_parameters": 1_000.0,
    "total_parameters": 100_000.0,
    "adapter_bytes": 4_000.0,
    "peak_memory_bytes": 2.0**20,
    "tokens_per_s": 100.0,
    "seconds": 10.0,
    "final_loss": 0.4,
}


@pytest.fixture
def made() -> Make:
    """A measured variant by name, with other numbers where they are given."""

    def make(name: str, **numbers: float) -> Variant:
        cell, seed = VARIANTS[name]
        return replace(
            variant_of(cell, seed, BASIS),
            rows={"train": 100, "validation": 5, "test": 6},
            numbers=NUMBERS | numbers,
            suite="world_instructions",
            metric="strict",
            mlflow_run_id=f"run of {name}",
        )

    return make


@pytest.fixture
def ranks(made: Make) -> dict[str, Variant]:
    """Rank 4, 8 and 16 over three seeds: 16 is better in each by 0.10, 4 once better and once worse."""
    losses = {"r8": (0.50, 0.52, 0.48), "r16": (0.40, 0.41, 0.39), "r4": (0.55, 0.47, 0.48)}
    sizes = {"r4": 500.0, "r8": 1_000.0, "r16": 2_000.0}
    return {
        name: made(name, test_loss=loss, trainable_parameters=sizes[rank], seconds=10.0 + i)
        for rank, by_seed in losses.items()
        for i, loss in enumerate(by_seed)
        for name in [f"{rank}-all-none-s{42 + i}"]
    }


@pytest.fixture
def timed() -> pl.DataFrame:
    rows = [
        {
            "variant": f"{cell}-s42",
            "cell": cell,
            "weights": "w",
            "engine": "transformers",
            "prompts": 6,
            "new_tokens": 60,
            "p50_s": median,
            "p95_s": 2 * median,
            "p99_s": 3 * median,
            "tokens_per_s": 10 / median,
            "other_cores": 0.0,
        }
        for cell, median in (("r8-all-none", 0.020), ("r16-all-none", 0.010))
    ]
    return pl.DataFrame(rows, schema=LATENCIES)
