from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from resources.hardware import TIERS
from resources.inference import Hardware, Inference
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import PAIRS, SFT_ROWS
from synth_assets.training.engine import LoadedBase
from synth_assets.training.plan import TrainingContext


@pytest.fixture(scope="session")
def inference() -> Inference:
    return Inference(hardware=Hardware(tier="cpu"))


@pytest.fixture(scope="session")
def base(inference: Inference) -> ModelRecord:
    return inference.resolve("base")


@pytest.fixture
def load(inference: Inference, base: ModelRecord) -> Callable[[], LoadedBase]:
    return lambda: inference.load_base(base)


@pytest.fixture
def context(tmp_path: Path) -> TrainingContext:
    return TrainingContext(tmp_path, tmp_path / "adapters", tmp_path / "shards", TIERS["cpu"], lambda _: None)


@pytest.fixture(scope="session")
def rows() -> pl.DataFrame:
    """Return 24 SFT rows, 21 of them in the train split."""
    numbers = range(24)
    return _table(
        SFT_ROWS,
        row_id=[f"r{i}" for i in numbers],
        history=[[] for _ in numbers],
        instruction=[f"What is {i} plus 1?" for i in numbers],
        response=[f"It is {i + 1}." for i in numbers],
        split=["validation" if i % 8 == 0 else "train" for i in numbers],
    )


@pytest.fixture(scope="session")
def pairs(rows: pl.DataFrame) -> pl.DataFrame:
    return _table(
        PAIRS,
        pair_id=[f"p{i}" for i in range(rows.height)],
        row_id=rows["row_id"],
        split=rows["split"],
        history=[[]] * rows.height,
        instruction=rows["instruction"],
        chosen=rows["response"],
        rejected=["No idea, sorry."] * rows.height,
        chosen_reward=[1.0] * rows.height,
    )


def _table(schema: pl.Schema, **columns: object) -> pl.DataFrame:
    """Return a table with the given columns; other columns of the schema are null."""
    height = len(next(iter(columns.values())))  # pyright: ignore[reportArgumentType]
    return pl.DataFrame({name: columns.get(name, [None] * height) for name in schema}, schema=schema)
