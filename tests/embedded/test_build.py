from pathlib import Path

import pytest

from synth_assets.embedded.build import COST, PARTS, Part, run_parts


def test_failed_part_stops_the_build_and_a_rerun_reuses_completed_parts(tmp_path: Path) -> None:
    student_without_rows = Part(("tokenizer",), PARTS["student"].make)
    expected = {"tokenizer": PARTS["tokenizer"], "student": student_without_rows}
    lines: list[str] = []
    with pytest.raises(FileNotFoundError, match=r"rows\.json"):
        run_parts(expected, tmp_path, lines.append)
    assert "tokenizer: done" in lines
    assert not (tmp_path / "student").exists()
    written = (tmp_path / "tokenizer" / COST).stat().st_mtime_ns

    run_parts({"tokenizer": PARTS["tokenizer"]}, tmp_path, lines.append)
    assert lines.count("tokenizer: done") == 1
    assert (tmp_path / "tokenizer" / COST).stat().st_mtime_ns == written


def test_every_dependency_is_a_part() -> None:
    assert {need for part in PARTS.values() for need in part.needs} <= set(PARTS)
