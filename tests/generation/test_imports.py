import csv
import json
from pathlib import Path

import polars as pl
import pytest

from synth_assets.record_files.records import MAX_RECORD_BYTES, RecordFileError
from synth_assets.schemas.tables import INSTRUCTIONS, PAIRS
from synth_assets.stages.generation import imports
from synth_assets.stages.generation.import_report import MAX_LINES
from synth_assets.stages.generation.imports import ImportOptions, read_file
from tests.support.fakes import jsonl


def qa(path: Path) -> list[tuple[str, str]]:
    frame = read_file(path).instructions.collect()
    return list(zip(frame["instruction"], frame["response"], strict=True))


ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
CHAT = [{"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"}]
SHAREGPT = [{"from": "human", "value": "Add 1 and 2."}, {"from": "gpt", "value": "3"}]


@pytest.mark.parametrize(
    ("row", "format_name", "expected"),
    [
        (ALPACA, "alpaca", ("Add.\n\n1 and 2", "3")),
        ({"instruction": "Add 1 and 2.", "output": "3"}, "alpaca", ("Add 1 and 2.", "3")),
        ({"conversations": SHAREGPT}, "sharegpt", ("Add 1 and 2.", "3")),
        ({"messages": CHAT}, "messages", ("Add 1 and 2.", "3")),
        ({"prompt": "Add 1 and 2.", "completion": "3"}, "completion", ("Add 1 and 2.", "3")),
        ({"instruction": "Add 1 and 2.", "response": "3"}, "completion", ("Add 1 and 2.", "3")),
        ({"question": "Add 1 and 2.", "answer": "3"}, "completion", ("Add 1 and 2.", "3")),
    ],
)
def test_formats_of_instructions_are_found(
    tmp_path: Path, row: object, format_name: str, expected: tuple[str, str]
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", row)
    read = read_file(path)
    assert list(read.report.formats) == [format_name]
    assert read.instructions.collect_schema() == INSTRUCTIONS
    assert read.preferences.collect().is_empty()
    assert qa(path) == [expected]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Add 1 and 2.", "chosen": "3", "rejected": "4"},
        {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "4"}},
        {"chosen": CHAT, "rejected": [CHAT[0], {"role": "assistant", "content": "4"}]},
        {
            "prompt": "Add 1 and 2.",
            "messages": CHAT,
            "chosen": CHAT,
            "rejected": [CHAT[0], {"role": "assistant", "content": "4"}],
        },
    ],
    ids=["texts", "sharegpt", "conversations", "ultrafeedback"],
)
def test_formats_of_preferences_are_found(tmp_path: Path, row: object) -> None:
    read = read_file(jsonl(tmp_path / "pairs.jsonl", row))
    assert (read.report.formats, read.report.rows) == ({"preference": 1}, 1)
    pairs = read.preferences.collect()
    assert pairs.schema == PAIRS
    assert pairs.select("instruction", "chosen", "rejected").row(0) == ("Add 1 and 2.", "3", "4")
    assert read.instructions.collect().is_empty()


def test_all_file_types_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"instruction": "Name, please\n“now”", "input": "", "output": "Ada"}, ALPACA]
    jsonl(tmp_path / "a.jsonl", *rows)
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ALPACA))
        writer.writeheader()
        writer.writerows(rows)
    expected = [("Name, please\n“now”", "Ada"), ("Add.\n\n1 and 2", "3")]
    assert [qa(tmp_path / f"a.{suffix}") for suffix in ("jsonl", "json", "parquet", "csv")] == [expected] * 4


def test_earlier_turns_become_history(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be kind."}, *CHAT, {"role": "user", "content": "And 3?"}]
    path = jsonl(tmp_path / "a.jsonl", {"messages": [*turns, {"role": "assistant", "content": "6"}]})
    row = read_file(path).instructions.collect().row(0, named=True)
    assert (row["instruction"], row["response"]) == ("And 3?", "6")
    assert [turn["role"] for turn in row["history"]] == ["system", "user", "assistant"]


def test_pairs_keep_their_earlier_turns(tmp_path: Path) -> None:
    row = {"conversations": [*SHAREGPT, {"from": "human", "value": "And 3?"}], "chosen": "6", "rejected": "7"}
    pair = read_file(jsonl(tmp_path / "a.jsonl", row)).preferences.collect().row(0, named=True)
    assert (pair["instruction"], pair["chosen"], pair["rejected"]) == ("And 3?", "6", "7")
    assert pair["history"] == CHAT


@pytest.mark.parametrize("text", ["<noinput>", "< noinput >", "<No input>", "no input", "N/A", "None.", ""])
def test_placeholder_inputs_are_dropped(tmp_path: Path, text: str) -> None:
    assert qa(jsonl(tmp_path / "a.jsonl", {**ALPACA, "input": text})) == [("Add.", "3")]


@pytest.mark.parametrize("text", ["None of them", "nothing", "N"])
def test_inputs_that_only_look_like_placeholders_stay(tmp_path: Path, text: str) -> None:
    assert qa(jsonl(tmp_path / "a.jsonl", {**ALPACA, "input": text})) == [(f"Add.\n\n{text}", "3")]


# fault 7: each bad record among good ones, as bytes of a line
BAD_LINES = {
    "invalid_unicode": b'{"instruction": "caf\xe9", "output": "x"}',
    "invalid_unicode ": b'{"instruction": "\\ud800 alone", "output": "x"}',
    "nul_character": b'{"instruction": "a\\u0000b", "output": "x"}',
    "too_large": b'{"instruction": "' + b"x" * 1_000_000 + b'", "output": "x"}',
    "not_json": b'{"instruction": "torn',
    "not_json ": b'{"instruction": "raw \0 byte", "output": "x"}',
    "not_json  ": b'{"instruction": ' + b"9" * 5_000 + b"}",
    "too_deep": b"[" * 200_000,
    "not_an_object": b'["instruction"]',
    "missing_column_output": b'{"instruction": "a"}',
    "not_text": b'{"instruction": 7, "output": "x"}',
    "empty_instruction": b'{"instruction": " \\n", "output": "x"}',
    "empty_response": b'{"instruction": "a", "output": ""}',
}
GOOD_LINES = {
    "right to left": '{"instruction": "ما هي العاصمة؟", "output": "القاهرة"}'.encode(),
    "one character": b'{"instruction": "?", "output": "!"}',
    "emoji by escapes": b'{"instruction": "\\ud83d\\ude00", "output": "smile"}',
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_is_rejected_and_its_neighbours_stay(tmp_path: Path, reason: str) -> None:  # fault 7
    path = tmp_path / "a.jsonl"
    good = b'{"instruction": "before", "output": "x"}', b'{"instruction": "after", "output": "x"}'
    path.write_bytes(b"\n".join([good[0], BAD_LINES[reason], good[1]]))
    read = read_file(path)
    assert read.instructions.collect()["instruction"].to_list() == ["before", "after"]
    assert read.report.rejected == {reason.strip(): 1}
    assert read.report.lines == {reason.strip(): [2]}


@pytest.mark.parametrize("kind", GOOD_LINES)
def test_unusual_text_is_kept(tmp_path: Path, kind: str) -> None:  # fault 7
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD_LINES[kind])
    assert qa(path) == [tuple(json.loads(GOOD_LINES[kind]).values())]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_and_windows_lines_are_no_fault(tmp_path: Path, end: bytes) -> None:  # fault 7
    path = tmp_path / "a.jsonl"
    row = b'{"instruction": "two\\r\\nlines", "output": "x"}'
    path.write_bytes(b"\xef\xbb\xbf" + row + end + end + row + end)
    read = read_file(path)
    assert read.instructions.collect()["instruction"].to_list() == ["two\nlines"] * 2
    assert read.report.repaired == {"line_ends": 2}


def test_a_record_at_the_size_limit_stays_and_one_byte_more_does_not(tmp_path: Path) -> None:
    def line(size: int) -> bytes:
        head, tail = b'{"instruction": "', b'", "output": "x"}\n'
        return head + b"y" * (size - len(head) - len(tail)) + tail

    path = tmp_path / "a.jsonl"
    path.write_bytes(line(MAX_RECORD_BYTES) + line(MAX_RECORD_BYTES + 1) + line(100))
    report = read_file(path).report
    assert (report.rows, report.rejected, report.lines) == (2, {"too_large": 1}, {"too_large": [2]})


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_bad_records_spoil_no_other_in_any_file_type(tmp_path: Path, suffix: str) -> None:  # fault 7
    path = tmp_path / f"a.{suffix}"
    texts = ["good", "nul \0 byte", "y" * 1_000_000, "fine"]
    if suffix == "parquet":
        pl.DataFrame({"prompt": texts, "completion": ["x"] * 4}).write_parquet(path)
    elif suffix == "json":
        path.write_text(json.dumps([{"prompt": text, "completion": "x"} for text in texts]))
    else:
        path.write_text("prompt,completion\n" + "".join(f"{text},x\n" for text in texts))
    read = read_file(path)
    assert read.instructions.collect()["instruction"].to_list() == ["good", "fine"]
    assert read.report.rejected == {"nul_character": 1, "too_large": 1}


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_bytes_that_are_not_utf8_spoil_their_record_alone(tmp_path: Path, suffix: str) -> None:  # fault 7
    path = tmp_path / f"a.{suffix}"
    if suffix == "json":
        path.write_bytes(b'[{"prompt": "caf\xe9", "completion": "x"}, {"prompt": "good", "completion": "x"}]')
    else:
        path.write_bytes(b"prompt,completion\ncaf\xe9,x\ngood,x\n")
    read = read_file(path)
    assert read.instructions.collect()["instruction"].to_list() == ["good"]
    assert read.report.rejected == {"invalid_unicode": 1}


def test_csv_rows_of_another_width_are_rejected_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\n"two\nlines",x\nonly one\nlast,x\n')
    report = read_file(path).report
    assert (report.rows, report.lines) == (2, {"wrong_number_of_cells": [4]})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"text", "ends in .jsonl, .json, .csv, .tsv, .parquet"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", "{}".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("a.json", b'{"prompt": "a"}', "expected an array"),
        ("a.json", b"[1, 2", "not a complete JSON array"),
        ("a.parquet", b"PAR1 but no more", "cannot be read as .parquet"),
        ("a.jsonl", b"no json\nat all\n", "none of the first 2 records"),
        ("a.jsonl", b'{"frage": "a", "antwort": "b"}', "columns frage, antwort do not fit any known format"),
    ],
)
def test_an_unreadable_file_is_named_with_the_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordFileError, match=message) as caught:
        read_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordFileError, match=r"a\.jsonl cannot be read"):
        read_file(tmp_path / "a.jsonl")


def test_own_columns_are_used(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"frage": "Add 1 and 2.", "antwort": "3", "id": 9})
    read = read_file(path, ImportOptions(columns={"instruction": "frage", "response": "antwort"}))
    assert read.instructions.collect().select("instruction", "response").row(0) == ("Add 1 and 2.", "3")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"instruction": "frage", "response": "reply"}, "no column reply; there are frage, antwort"),
        ({"question": "frage"}, "no role question; a column can be instruction"),
        ({"instruction": "frage"}, "are not enough"),
    ],
)
def test_wrong_own_columns_are_explained(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"frage": "a", "antwort": "b"})
    with pytest.raises(RecordFileError, match=message):
        read_file(path, ImportOptions(columns=columns))


def test_a_named_format_is_not_replaced_by_another(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(RecordFileError, match="do not fit format messages"):
        read_file(path, ImportOptions("messages"))
    with pytest.raises(RecordFileError, match="no format 'alpacca'; there are"):
        read_file(path, ImportOptions("alpacca"))


def test_copies_of_a_row_get_ids_of_their_own(tmp_path: Path) -> None:
    first = read_file(jsonl(tmp_path / "a.jsonl", ALPACA, ALPACA)).instructions.collect()
    assert first["row_id"].n_unique() == 2
    again = read_file(tmp_path / "a.jsonl").instructions.collect()
    assert again["row_id"].to_list() == first["row_id"].to_list()


def test_counts_are_exact_and_lines_are_limited(tmp_path: Path) -> None:
    report = read_file(jsonl(tmp_path / "a.jsonl", ALPACA, *[[]] * 50)).report
    assert report.rejected == {"not_an_object": 50}
    assert report.lines == {"not_an_object": list(range(2, 2 + MAX_LINES))}


def test_chunks_on_disk_give_the_table_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "CHUNK_ROWS", 3)
    path = jsonl(tmp_path / "a.jsonl", *({"prompt": f"q{n}", "completion": "x"} for n in range(10)))
    (tmp_path / "scratch").mkdir()
    spilled = read_file(path, scratch=tmp_path / "scratch").instructions.collect()
    assert len(list((tmp_path / "scratch").iterdir())) == 4
    assert spilled.equals(read_file(path).instructions.collect())


@pytest.mark.parametrize(
    ("name", "format_name", "kept", "rejected"),
    [
        ("alpaca_en_first500.jsonl", "alpaca", 500, {}),
        ("magpie_llama31_first750.jsonl", "completion", 750, {}),
        ("preference_llama31_first300.jsonl", "preference", 300, {}),
        ("dpo_en_first150.jsonl", "preference", 149, {}),
    ],
)
def test_real_files(test_data: Path, name: str, format_name: str, kept: int, rejected: dict[str, int]) -> None:
    report = read_file(test_data / name).report
    assert (list(report.formats), report.rows, report.rejected) == ([format_name], kept, rejected)
