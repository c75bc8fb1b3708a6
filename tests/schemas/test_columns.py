import polars as pl

from synth_assets.schemas import tables
from synth_assets.schemas.columns import COLUMNS


def test_every_column_of_every_table_is_described_and_no_other() -> None:
    schemas = [value for value in vars(tables).values() if isinstance(value, pl.Schema)]
    assert len(schemas) > 8
    assert {name for schema in schemas for name in schema} == COLUMNS.keys()
