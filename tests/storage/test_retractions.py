from pathlib import Path

import pytest

from synth_assets.storage.retractions import Recall, add_recalls, recall_log, recalls_in_force, taint_text

FIRST, SECOND = "2026-11-20T12:00:00+00:00", "2026-11-21T12:00:00+00:00"


def test_the_last_entry_of_a_row_is_in_force(tmp_path: Path) -> None:
    log = tmp_path / "recalls.jsonl"
    assert recalls_in_force(log).is_empty()
    add_recalls(
        log, [Recall("b", "recalled", "wrong", "ada", FIRST), Recall("a", "recalled", "\u2028line", "ada", FIRST)]
    )
    add_recalls(log, [Recall("b", "let in", "mistaken", "bob", SECOND)])
    assert recalls_in_force(log).rows() == [("a", "\u2028line", "ada", FIRST)]
    add_recalls(log, [Recall("b", "recalled", "after all", "bob", SECOND)])
    assert recalls_in_force(log)["reason"].to_list() == ["\u2028line", "after all"]
    assert [entry.action for entry in recall_log(log)] == ["recalled", "recalled", "let in", "recalled"]


def test_damaged_log_raises_with_the_line(tmp_path: Path) -> None:
    log = tmp_path / "recalls.jsonl"
    log.write_text('{"row_id": "a"}\n', "utf-8")
    with pytest.raises(ValueError, match="line 1"):
        recalls_in_force(log)


def test_a_tag_shows_five_rows_and_counts_all(tmp_path: Path) -> None:
    log = tmp_path / "recalls.jsonl"
    add_recalls(log, [Recall(f"r{n}", "recalled", "wrong", "ada", FIRST) for n in range(7)])
    told = taint_text(recalls_in_force(log))
    assert told.startswith("7 recalled rows: r0 (recalled by ada on 2026-11-20: wrong); r1 (")
    assert told.endswith("; 2 more")
    assert taint_text(recalls_in_force(tmp_path / "none")) == ""


def test_undecodable_reason_is_escaped_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "recalls.jsonl"
    add_recalls(log, [Recall("a", "recalled", "bytes \udcff", "ada", FIRST)])
    assert recalls_in_force(log)["reason"].to_list() == ["bytes \\udcff"]
    log.write_text('{"row_id": 1, "action": "recalled", "reason": "x", "by": "ada", "at": "now"}\n', "utf-8")
    with pytest.raises(ValueError, match="line 1"):
        recalls_in_force(log)
    log.write_text("[1]\n", "utf-8")
    with pytest.raises(ValueError, match="line 1"):
        recalls_in_force(log)
