"""Batches of bounded rows and bytes: the same rows, whatever the limits."""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.storage.manifests import content_hash
from synth_assets.storage.row_batches import row_batches, text_bytes, write_row_groups

TURN = {"role": "user", "content": "abc"}


def table(rows: int, characters: int) -> pl.DataFrame:
    texts = [f"{n} " + "x" * characters for n in range(rows)]
    return pl.DataFrame({"text": texts, "history": [[TURN], []] * (rows // 2), "n": range(rows)})


def test_text_bytes_includes_nested_texts() -> None:
    rows = pl.DataFrame({"a": ["x", "éé", None], "history": [[TURN], [], None], "n": [1, 2, 3]})
    assert text_bytes(rows) == 1 + 4 + 4 + 3 + 3 * 8
    assert text_bytes(pl.DataFrame(schema=INSTRUCTIONS)) == 0


@pytest.mark.parametrize(("at_most_rows", "at_most_bytes"), [(1, 10), (7, 10_000), (64, 1_000), (1_000, 10**9)])
def test_batches_hold_all_rows_in_order_within_both_limits(at_most_rows: int, at_most_bytes: int) -> None:
    rows = table(200, 100)
    batches = list(row_batches(rows.lazy(), at_most_rows, at_most_bytes))
    assert_frame_equal(pl.concat(batches), rows)
    assert max(batch.height for batch in batches) <= at_most_rows
    assert all(batch.height == 1 or text_bytes(batch) <= at_most_bytes * 1.1 for batch in batches)


def test_no_rows_give_no_batch() -> None:
    assert list(row_batches(pl.LazyFrame(schema=INSTRUCTIONS), 10)) == []


def test_row_groups_are_bounded_by_rows_and_by_bytes(tmp_path: Path) -> None:
    for name, rows in {"short": table(20_000, 5), "long": table(400, 200_000)}.items():
        write_row_groups(rows.lazy(), tmp_path / name, 8_192)
        assert_frame_equal(pl.read_parquet(tmp_path / name), rows)
    short, long = (pq.ParquetFile(tmp_path / name).metadata for name in ("short", "long"))
    assert [short.row_group(n).num_rows for n in range(short.num_row_groups)] == [8_192, 8_192, 3_616]
    assert max(long.row_group(n).num_rows for n in range(long.num_row_groups)) <= 84  # of 200 kB, below 16.8 MB


def test_an_empty_table_keeps_its_schema(tmp_path: Path) -> None:
    write_row_groups(pl.LazyFrame(schema=INSTRUCTIONS), tmp_path / "empty", 10)
    assert pl.read_parquet(tmp_path / "empty").schema == INSTRUCTIONS


def test_the_content_hash_does_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(300, 20)
    before = content_hash(rows)
    monkeypatch.setattr("synth_assets.storage.manifests.HASHED_ROWS", 7)
    assert content_hash(rows) == before
