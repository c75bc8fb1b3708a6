from pathlib import Path

import pytest

from synth_assets.storage.append_log import append_entry, read_entries


def test_entries_are_read_in_the_order_they_were_written(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    assert read_entries(log) == []
    append_entry(log, {"text": "é\n\u2028"})
    append_entry(log, {"text": "b"})
    assert read_entries(log) == [{"text": "é\n\u2028"}, {"text": "b"}]


def test_the_remains_of_a_killed_writer_are_ignored_and_removed(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_entry(log, {"n": 1})
    with log.open("ab") as file:
        file.write(b'{"n": 2, "te')
    assert read_entries(log) == [{"n": 1}]
    append_entry(log, {"n": 3})
    assert read_entries(log) == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"n": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2 is not an entry"):
        read_entries(log)
