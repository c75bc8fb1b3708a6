"""What the candidates and pairs of both preference rounds are made from."""

import dagster as dg
import polars as pl

from resources.storage import SynthHome
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import SFT_ROWS
from synth_assets.storage.retractions import recalls_in_force

ROWS = 20


@dg.asset
def base_model() -> ModelRecord:
    return ModelRecord("base", "embedded:base", "r1", "llama", 256)


@dg.asset
def reward_model() -> ModelRecord:
    return ModelRecord("reward", "embedded:reward", "r1", "llama", 256)


@dg.asset
def sft_dataset() -> pl.LazyFrame:
    splits = ["train"] * ROWS + ["validation"] * 5
    rows = [
        {"row_id": f"r{n}", "group": f"g{n}", "instruction": f"q{n}", "response": "x", "split": split, "history": []}
        for n, split in enumerate(splits)
    ]
    return pl.LazyFrame(rows, schema=SFT_ROWS)


@dg.asset
def recalled_rows(home: SynthHome) -> pl.DataFrame:
    return recalls_in_force(home.recalls())
