from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_causal_model, load_tokenizer, prepare_libraries
from synth_assets.schemas.tables import TURN
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup
from synth_assets.training.logprobs import pair_logprobs, reference_policy
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec

QUICK_LORA = LoraSpec(rank=4, alpha=8, learning_rate=5e-3, epochs=2.0, batch_size=8)


@pytest.fixture(scope="session")
def setup() -> TrainingSetup:
    return TrainingSetup("an_adapter", "embedded:base", 256, TIERS["cpu"], lambda _: None)


@pytest.fixture(scope="session")
def load() -> Callable[[], LoadedBase]:
    """Load the embedded base anew for each training, which modifies the model."""

    def loaded() -> LoadedBase:
        prepare_libraries(TIERS["cpu"])
        folder = model_path("base")
        return load_causal_model(folder, TIERS["cpu"]), load_tokenizer(folder)

    return loaded


@pytest.fixture(scope="session")
def rows() -> pl.DataFrame:
    """Return 32 rows of unequal length, 28 of them in the train split."""
    numbers = range(32)
    return pl.DataFrame(
        {
            "row_id": [f"r{i}" for i in numbers],
            "history": [[] for _ in numbers],
            "instruction": [f"What is {i} plus 1?" + " Please." * (i % 3) for i in numbers],
            "response": [f"It is {i + 1}." for i in numbers],
            "split": ["validation" if i % 8 == 0 else "train" for i in numbers],
        },
        schema_overrides={"history": pl.List(TURN)},
    )


@pytest.fixture(scope="session")
def pairs(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        pl.format("p{}", "row_id").alias("pair_id"),
        "row_id",
        "split",
        "history",
        "instruction",
        pl.col("response").alias("chosen"),
        pl.lit("No idea, sorry.").alias("rejected"),
        pl.lit(1.0).alias("chosen_reward"),
    )


@pytest.fixture(scope="session")
def lora(load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup) -> Trained:
    return train_lora(load(), rows, QUICK_LORA, setup)


@pytest.fixture(scope="session")
def lora_folder(lora: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    lora.save(folder)
    return folder


@pytest.fixture(scope="session")
def reference(
    load: Callable[[], LoadedBase], lora_folder: Path, pairs: pl.DataFrame, setup: TrainingSetup
) -> pl.DataFrame:
    """Return the log-probabilities of `pairs` under the adapter that DPO and KTO continue."""
    return pair_logprobs(reference_policy(load(), lora_folder, setup), pairs, setup)
