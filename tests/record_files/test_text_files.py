"""JSON, JSONL, CSV and TSV: what is read, and that a bad record spoils no other."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from synth_assets.record_files import json_files
from synth_assets.record_files.reading import read_records, read_strictly
from synth_assets.record_files.records import FAULTS, MAX_DEPTH, MAX_RECORD_BYTES, Record, RecordFileError

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_bytes(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write_bytes


def rows(path: Path) -> list[dict[str, Any]]:
    return [record.columns for record in read_strictly(path)]


def faults(path: Path) -> dict[int, str]:
    return {record.line: record.fault for record in read_records(path) if record.fault}


def nested(depth: int) -> bytes:
    """A record whose values nest `depth` levels."""
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_unclosed_quote_invalidates_only_its_row(write: Write) -> None:
    path = write("a.csv", b'q,a\nName a colour.,"Green.\nName a bird.,Owl.\nName a fish.,Cod.\n')
    assert faults(path) == {2: "unclosed_quote"}
    assert [record.columns["a"] for record in read_records(path) if not record.fault] == ["Owl.", "Cod."]


@pytest.mark.parametrize("last", ['a,"b"', 'a,"b""', '"a,b', 'x,y","z'])
def test_unclosed_quote_before_another_quote_swallows_no_row(write: Write, last: str) -> None:
    lines = ["q,a", 'open,"never closed', *(f"q{n},a{n}" for n in range(2_000)), last]
    path = write("a.csv", "\n".join(lines).encode())
    kept = [record for record in read_records(path) if not record.fault]
    assert [record.columns["a"] for record in kept[:2_000]] == [f"a{n}" for n in range(2_000)]
    assert faults(path)[2] == "unclosed_quote"


def test_unclosed_quote_in_a_long_file_is_detected_early(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth_assets.record_files.delimited.LOOK_AHEAD_BYTES", 1_000)
    path = write("a.csv", b'q,a\nx,"open\n' + b"q,a\n" * 10_000)
    assert faults(path) == {2: "unclosed_quote"}
    assert sum(not record.fault for record in read_records(path)) == 10_000


def test_quoted_lines_of_a_rejected_row_are_no_rows(write: Write) -> None:
    path = write("a.csv", b'q,a\nx,"two\nlines" more,y\ngood,x\n')
    assert faults(path) == {2: "unclosed_quote", 3: "not_csv"}


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ('"two\nlines",x', ["two\nlines", "x"]),
        ('"say ""hi""",x', ['say "hi"', "x"]),
        ('"","x"', ["", "x"]),
        ('"a,b","c,d"', ["a,b", "c,d"]),
        ("x,", ["x", ""]),
        ('5" pipe,x', ['5" pipe', "x"]),
        ('"a\r\nb",x', ["a\r\nb", "x"]),
        ('"\n\n"""\n",x', None),
    ],
)
def test_quoted_cells(write: Write, text: str, cells: list[str] | None) -> None:
    path = write("a.csv", f"q,a\n{text}\n".encode())
    if cells is None:
        assert faults(path)[2] == "unclosed_quote"
    else:
        assert [list(row.values()) for row in rows(path)] == [cells]


def test_text_after_a_closing_quote_is_rejected(write: Write) -> None:
    assert faults(write("a.csv", b'q,a\n"x"y,z\ngood,x\n')) == {2: "not_csv"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"q;a\nWhat, please?;Green, red.\n"),
        ("a.csv", b'"q";"a"\n"What, please?";"Green, red."\n'),
        ("a.csv", b"\xef\xbb\xbfq;a\r\nWhat, please?;Green, red.\r\n"),
        ("a.csv", b"q\ta\nWhat, please?\tGreen, red.\n"),
        ("a.csv", b"sep=;\nq;a\nWhat, please?;Green, red.\n"),
        ("a.csv", b'q,a\n"What, please?","Green, red."\n'),
        ("a.tsv", b"q\ta\nWhat, please?\tGreen, red.\n"),
        ("A.TSV", b"q\ta\nWhat, please?\tGreen, red."),
        ("a.csv", b'"q;1","a;2"\n"What, please?","Green, red."\n'),
    ],
)
def test_delimiter_is_inferred(write: Write, name: str, data: bytes) -> None:
    assert [list(row.values()) for row in rows(write(name, data))] == [["What, please?", "Green, red."]]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"a,b,a\n", "duplicate columns a in the header"),
        (b'a,"b\n1,2\n', "line 1: the header cannot be read"),
        (b"a,b\r1,2\r", "only a carriage return"),
        (b"\xef\xbb\xbf", "is empty"),
    ],
)
def test_invalid_header_raises(write: Write, header: bytes, message: str) -> None:
    with pytest.raises(RecordFileError, match=message):
        rows(write("a.csv", header))


def test_unnamed_header_cell_gets_a_name(write: Write) -> None:
    assert rows(write("a.csv", b",q\n0,x\n")) == [{"unnamed column 1": "0", "q": "x"}]


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 490, 990, 5_000])
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_deeply_nested_record_is_rejected(write: Write, depth: int, suffix: str) -> None:
    parts = [b'{"a": 1}', nested(depth), b'{"a": 2}']
    data = b"\n".join(parts) if suffix == "jsonl" else b"[" + b",\n".join(parts) + b"]"
    path = write(f"a.{suffix}", data)
    assert faults(path) == {2: "too_deep"}
    assert sum(not record.fault for record in read_records(path)) == 2


def test_a_record_at_the_depth_limit_is_read(write: Write) -> None:
    assert faults(write("a.jsonl", nested(MAX_DEPTH - 1))) == {}


SEPARATORS = "U+2028 \u2028, U+2029 \u2029, U+0085 \u0085, form feed \f"


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_unicode_line_separators_do_not_end_a_line(write: Write, suffix: str) -> None:
    text = SEPARATORS.replace("\f", "") if suffix == "json" else SEPARATORS.replace(" \f", "")
    line = json.dumps({"a": text}, ensure_ascii=False)
    data = {"jsonl": line, "json": f"[{line}]", "csv": f'a\n"{text}"\n'}[suffix]
    assert rows(write(f"a.{suffix}", data.encode())) == [{"a": text}]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_compression_do_not_change_records(
    write: Write, suffix: str, compression: str, mark: bytes
) -> None:
    data = mark + {"jsonl": b'{"a": "x"}\r\n', "json": b'[{"a": "x"}]'}.get(suffix, b"a\r\nx\r\n")
    pack = {".gz": gzip.compress, ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True)}
    path = write(f"a.{suffix}{compression}", pack.get(compression, bytes)(data))
    assert rows(path) == [{"a": "x"}]


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_truncated_or_mislabelled_compressed_file_raises(write: Write, compression: str) -> None:
    line = b"".join(b'{"a": "%d"}\n' % n for n in range(3_000))
    whole = gzip.compress(line) if compression == ".gz" else pa.compress(line, codec="zstd", asbytes=True)
    for data in (whole[:-20], b"not compressed at all"):
        path = write(f"a.jsonl{compression}", data)
        with pytest.raises(RecordFileError, match=rf"a\.jsonl{compression} cannot be read"):
            rows(path)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 65_536])
def test_array_does_not_depend_on_read_size(write: Write, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(json_files, "READ_BYTES", size)
    value = [{"a": 'quote " brace } \\ comma , bracket ]', "b": [1, {"c": None}]}, {}, {"d": "\u2028"}, {"e": -1.5}]
    text = json.dumps(value, indent=1)
    assert rows(write("a.json", f"\n {text} \n".encode())) == value
    assert rows(write("b.json", b"\xef\xbb\xbf[]")) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}', "is a JSON object; expected an array"),
        (b'"text"', "is a JSON value; expected an array"),
        (b'[{"a": 1}, ', "it ends in element 2"),
        (b'[{"a": "1}]', "it ends in element 1"),
        (b'[{"a": 1}] [2]', "has content after the end"),
    ],
)
def test_other_json_than_an_array_raises(write: Write, data: bytes, message: str) -> None:
    with pytest.raises(RecordFileError, match=message):
        rows(write("a.json", data))


def test_invalid_array_element_is_isolated(write: Write) -> None:
    large = b'{"a": "' + b"x" * MAX_RECORD_BYTES + b'"}'
    path = write("a.json", b'[{"a": 1}, {"a": tru}, 7, ' + large + b', {"a": 2},, {"a": 3}]')
    assert faults(path) == {2: "not_json", 3: "not_an_object", 4: "too_large", 6: "not_json"}
    assert [record.columns for record in read_records(path) if not record.fault] == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_record_at_the_size_limit_is_read_from_an_array(write: Write) -> None:
    head, tail = b'{"a": "', b'"}'
    for extra, count in ((0, 0), (1, 1)):
        record = head + b"x" * (MAX_RECORD_BYTES - len(head) - len(tail) + extra) + tail
        assert len(faults(write("a.json", b"[" + record + b", {}]"))) == count


def test_strict_reading_names_the_line_and_what_to_do(write: Write) -> None:
    path = write("a.jsonl", b'{"a": 1}\n\n{"a": \n')
    with pytest.raises(RecordFileError, match=r"a\.jsonl, line 3: the record is not valid JSON \(not_json\)"):
        rows(path)
    assert next(iter(read_strictly(path))) == Record(1, {"a": 1})


def test_every_fault_has_a_description() -> None:
    assert all(text and reason == reason.strip() for reason, text in FAULTS.items())


@pytest.mark.parametrize("name", ["a.txt", "a", "a.parquet.gz", "a.gz"])
def test_unsupported_file_name_raises(write: Write, name: str) -> None:
    with pytest.raises(RecordFileError, match=r"expected a name that ends in \.jsonl, \.json, \.csv, \.tsv"):
        rows(write(name, b"x"))
