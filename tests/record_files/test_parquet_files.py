"""Parquet: that no file, however small, decides how much memory its rows take."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth_assets.record_files import parquet_rows as module
from synth_assets.record_files.parquet_pages import pages_of
from synth_assets.record_files.reading import read_records
from synth_assets.record_files.records import MAX_RECORD_BYTES, RecordFileError

ROOT = Path(__file__).parents[2]
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
ROWS = [
    {"text": "a" * 100, "turns": TURNS, "lists": {"role": ["user"], "content": ["x"]}, "number": 1, "flags": [True]},
    {"text": None, "turns": None, "lists": None, "number": None, "flags": None},
    {"text": "", "turns": [], "lists": {"role": [], "content": []}, "number": -2, "flags": []},
]


def written(path: Path, columns: dict[str, Any], **options: Any) -> Path:  # noqa: ANN401
    pq.write_table(pa.table(columns), path, **({"compression": "zstd"} | options))
    return path


@pytest.mark.parametrize("group_bytes", [module.GROUP_BYTES, 0])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_values_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_bytes: int, use_dictionary: bool
) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", group_bytes or 25_000)
    table = pa.Table.from_pylist(ROWS * 700)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=900, use_dictionary=use_dictionary)
    records = list(read_records(tmp_path / "a.parquet"))
    assert [record.columns for record in records] == ROWS * 700
    assert [record.line for record in records] == list(range(1, 2_101))


def test_row_above_the_size_limit_is_rejected_alone(tmp_path: Path) -> None:
    texts = ["x", "y" * MAX_RECORD_BYTES, "y" * (MAX_RECORD_BYTES + 1), "z"]
    path = written(tmp_path / "a.parquet", {"text": texts})
    assert [record.fault for record in read_records(path)] == ["", "", "too_large", ""]


@pytest.mark.parametrize("data_page_version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_page_headers_give_sizes_and_counts(tmp_path: Path, data_page_version: str, compression: str) -> None:
    texts = [str(n) * 50 for n in range(5_000)]
    path = written(
        tmp_path / "a.parquet",
        {"text": texts},
        use_dictionary=False,
        data_page_size=4_096,
        data_page_version=data_page_version,
        compression=compression,
    )
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    with path.open("rb") as file:
        pages = pages_of(file, chunk.data_page_offset, chunk.total_compressed_size)
    assert pages.values == 5_000
    assert not pages.prefixed
    assert sum(len(text) + 4 for text in texts) <= pages.bytes <= chunk.total_uncompressed_size
    assert 4_096 <= pages.largest_bytes < pages.bytes


def test_prefixed_encoding_is_detected(tmp_path: Path) -> None:
    texts = {"text": [f"the same start {n}" for n in range(100)]}
    options = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    path = written(tmp_path / "a.parquet", texts, **options)
    assert [record.columns["text"] for record in read_records(path)] == texts["text"]
    lists = written(
        tmp_path / "b.parquet",
        {"text": [["a"], ["b"]]},
        use_dictionary=False,
        column_encoding={"text.list.element": "DELTA_BYTE_ARRAY"},
    )
    with pytest.raises(RecordFileError, match=r"b\.parquet: row group 1: column text\.list\.element is encoded"):
        list(read_records(lists))


@pytest.mark.parametrize(
    ("limit", "columns", "options", "message"),
    [
        ("PAGES_BYTES", {"text": ["x" * 20_000]}, {}, "its pages take .* smaller pages"),
        (
            "LIST_VALUES",
            {"text": [["x"] * 20_000]},
            {},
            "has 20,000 values, the limit is 10,000",
        ),
        ("GROUP_BYTES", {"text": [["x" * 20_000]]}, {}, "its lists take .* smaller row groups"),
        ("FIXED_BYTES", {"text": pa.array([b"x" * 20_000], pa.binary(20_000))}, {}, "values of 20,000 bytes each"),
    ],
)
def test_file_beyond_a_limit_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, columns: dict[str, Any], options: dict, message: str
) -> None:
    monkeypatch.setattr(module, limit, 10_000)
    with pytest.raises(RecordFileError, match=rf"a\.parquet: row group 1.*{message}"):
        list(read_records(written(tmp_path / "a.parquet", columns, **options)))


def test_damaged_page_header_raises(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"text": ["some text"] * 100})
    data = bytearray(path.read_bytes())
    for at in range(4, 40):
        torn = bytearray(data)
        torn[at] = 0xFF
        path.write_bytes(torn)
        with contextlib.suppress(RecordFileError):
            list(read_records(path))


READ = """
import resource, sys
from collections import Counter
from pathlib import Path
from synth_assets.record_files.reading import read_records
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
faults = Counter(record.fault for record in read_records(Path(sys.argv[1])))
print(dict(faults), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def repeated(text: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), pa.array([text]))


def hostile(path: Path, kind: str) -> Path:
    """A file of a few kB whose rows take 2 GB."""
    texts = repeated("x" * 200_000, 10_000)
    return written(path, {"text": pa.ListArray.from_arrays([0, 10_000], texts) if kind == "list" else texts})


@pytest.mark.parametrize(("kind", "faults"), [("dictionary", {"": 10_000}), ("list", {"too_large": 1})])
def test_small_file_that_expands_uses_bounded_memory(tmp_path: Path, kind: str, faults: dict[str, int]) -> None:
    path = hostile(tmp_path / "a.parquet", kind)
    assert path.stat().st_size < 20_000
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True, cwd=ROOT)
    counts, megabytes = done.stdout.rsplit(maxsplit=1)
    assert counts == str(faults)
    assert int(megabytes) < 400
