"""Properties of the readers of record files: what was written is read, whatever the texts."""

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from synth_assets.record_files.reading import read_records

TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
ROWS = st.lists(st.fixed_dictionaries({"instruction": TEXTS, "output": TEXTS}), min_size=1, max_size=8)


def fields_of(name: str, content: bytes) -> list[object]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        records = list(read_records(path))
    assert not [record.fault for record in records if record.fault]
    return [record.columns for record in records]


@given(ROWS)
def test_json_lines(rows: list[dict[str, str]]) -> None:
    lines = [json.dumps(row) + "\n" for row in rows]
    assert fields_of("rows.jsonl", "".join(lines).encode()) == rows


@given(ROWS, st.integers(0, 4))
def test_a_json_array_with_any_indent(rows: list[dict[str, str]], indent: int) -> None:
    assert fields_of("rows.json", json.dumps(rows, indent=indent or None, ensure_ascii=False).encode()) == rows


@given(ROWS)
def test_parquet(rows: list[dict[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pl.DataFrame(rows).write_parquet(path)
        assert [record.columns for record in read_records(path)] == rows


@given(ROWS.filter(lambda rows: all("\0" not in text and "\r" not in text for row in rows for text in row.values())))
def test_csv_with_every_field_quoted(rows: list[dict[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["instruction", "output"], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
        assert [record.columns for record in read_records(path)] == rows
