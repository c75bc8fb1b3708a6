from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from synth_assets.generation.families import FAMILIES
from synth_assets.generation.magpie import MagpieSpec, generate
from synth_assets.generation.seeds import row_seed
from synth_assets.records import INSTRUCTIONS

SPEC = MagpieSpec(samples=100, max_instruction_tokens=8, max_response_tokens=9)


def silent(_: str) -> None:
    return None


def make(teacher: Any, folder: Path, spec: MagpieSpec = SPEC, batch: str = "first") -> pl.DataFrame:
    return generate(teacher, spec, batch, "embedded", folder, silent).rows.collect()


def test_a_batch_has_exactly_the_samples_asked_for_in_whole_blocks(teacher: Any, tmp_path: Path) -> None:
    rows = make(teacher, tmp_path)
    assert rows.schema == INSTRUCTIONS
    assert rows.height == 100
    assert [n for n, sampling in teacher.asked if sampling.max_tokens == 8] == [64, 64]
    assert rows["seed"].to_list() == [row_seed(42, "first", index) for index in range(100)]
    assert rows["row_id"].n_unique() == 100


def test_instructions_come_from_the_template_and_answers_from_the_chat(teacher: Any, tmp_path: Path) -> None:
    make(teacher, tmp_path)
    asking, answering = teacher.asked[0][1], teacher.asked[1][1]
    assert (asking.temperature, asking.max_tokens) == (1.0, 8)
    assert (answering.temperature, answering.max_tokens) == (0.7, 9)
    assert asking.stop == answering.stop == FAMILIES["embedded"].stop


def test_no_two_draws_share_a_random_stream(teacher: Any, tmp_path: Path) -> None:
    make(teacher, tmp_path)
    assert len(set(teacher.seeds)) == len(teacher.seeds)


def test_empty_instructions_stay_and_are_not_answered(teacher: Any, tmp_path: Path) -> None:
    rows = make(teacher, tmp_path)
    empty = rows.filter(pl.col("instruction") == "")
    assert 0 < empty.height < rows.height
    assert set(empty["response"]) == {""}
    assert set(empty["response_tokens"]) == {0}
    assert empty["response_finish_reason"].null_count() == empty.height
    answered = sum(n for n, sampling in teacher.asked if sampling.max_tokens == 9)
    assert answered == sum(n for n, sampling in teacher.asked if sampling.max_tokens == 8) - _empty_in_blocks(tmp_path)


def _empty_in_blocks(folder: Path) -> int:
    return pl.read_parquet(folder / "*.parquet").filter(pl.col("instruction") == "").height


def test_more_samples_make_only_the_missing_blocks(teacher: Any, tmp_path: Path) -> None:
    few = make(teacher, tmp_path)
    teacher.asked.clear()
    many = make(teacher, tmp_path, replace(SPEC, samples=200))
    assert [n for n, sampling in teacher.asked if sampling.max_tokens == 8] == [64, 64]
    assert many.height == 200
    assert_frame_equal(many.head(100), few)


def test_a_second_run_asks_the_teacher_nothing(teacher: Any, tmp_path: Path) -> None:
    first = generate(teacher, SPEC, "first", "embedded", tmp_path, silent)
    teacher.asked.clear()
    second = generate(teacher, SPEC, "first", "embedded", tmp_path, silent)
    assert teacher.asked == []
    assert first.new_tokens > 0
    assert second.new_tokens == 0
    assert_frame_equal(first.rows.collect(), second.rows.collect())


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_stopping_points_leave_no_trace_in_the_table(teacher: Any, tmp_path: Path, stop_after: int) -> None:  # fault 2
    spec = replace(SPEC, samples=250)
    whole = make(type(teacher)(), tmp_path / "whole", spec)
    (tmp_path / "parts").mkdir()
    make(teacher, tmp_path / "parts", replace(spec, samples=64 * stop_after))
    assert_frame_equal(make(teacher, tmp_path / "parts", spec), whole)


@pytest.mark.parametrize("damage", ["delete", "flip", "truncate"])
def test_a_damaged_shard_alone_is_made_again(teacher: Any, tmp_path: Path, damage: str) -> None:  # faults 2 and 3
    before = make(teacher, tmp_path, replace(SPEC, samples=250))
    teacher.asked.clear()
    victim = sorted(tmp_path.glob("*.parquet"))[1]
    data = victim.read_bytes()
    if damage == "delete":
        victim.unlink()
    elif damage == "flip":
        victim.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    else:
        victim.write_bytes(data[:-7])
    after = make(teacher, tmp_path, replace(SPEC, samples=250))
    assert [n for n, sampling in teacher.asked if sampling.max_tokens == 8] == [64]
    assert victim.read_bytes() == data
    assert_frame_equal(after, before)


def test_two_batches_share_no_row(teacher: Any, tmp_path: Path) -> None:
    first, second = (make(teacher, tmp_path, batch=batch) for batch in ("first", "second"))
    assert set(first["row_id"]).isdisjoint(second["row_id"])
    assert set(first["seed"]).isdisjoint(second["seed"])


@pytest.mark.parametrize("change", [{"model": "other"}, {"revision": "r2"}, {"engine": "fake 2"}])
def test_another_teacher_makes_rows_of_its_own(teacher: Any, tmp_path: Path, change: dict[str, str]) -> None:
    first = make(teacher, tmp_path)
    second = make(type(teacher)(**change), tmp_path)
    assert set(first["row_id"]).isdisjoint(second["row_id"])


def test_headings_are_banned_where_they_are_one_token(teacher: Any, tmp_path: Path) -> None:
    generate(teacher, replace(SPEC, samples=1), "first", "llama3", tmp_path, silent)
    # the fake has one token a character, so of "#", "##", "###", "####" the first alone is one token
    assert teacher.asked[0][1].banned_first == (ord("#"),)
    assert teacher.asked[1][1].banned_first == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples", 0), ("max_response_tokens", 0), ("temperature", -0.1), ("response_temperature", 2.1), ("top_p", 0.0)],
)
def test_a_spec_that_cannot_work_names_its_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"MagpieSpec.{field}"):
        MagpieSpec(**{field: value})


def test_an_unknown_family_names_those_there_are(teacher: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model family 'alien'; there are llama3"):
        generate(teacher, SPEC, "first", "alien", tmp_path, silent)
