import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from synth_assets.evals.training_constraints import split_constraints
from synth_assets.llm.chat_encoding import ChatTemplateError
from synth_assets.llm.prompt_formats import FAMILIES
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.generation.magpie import generate
from synth_assets.stages.generation.seeds import row_seed
from synth_assets.stages.generation.spec import MagpieSpec
from tests.support.fakes import silent

SPEC = MagpieSpec(samples=100, max_instruction_tokens=8, max_response_tokens=9)


WORDS = ("sum", "name", "city", "river", "colour", "opposite", "capital", "number")


@dataclass
class Teacher:
    """Says what a hash of prompt, seed and temperature draws; one text in eight is empty, one in five is cut."""

    model: str = "arithmetic"
    revision: str = "r1"
    engine: str = "fake 1"
    context_tokens: int = 1_000
    asked: list[tuple[int, Sampling]] = field(default_factory=list)  # rows and sampling of each call
    seeds: list[int] = field(default_factory=list)
    openings: list[Sequence[Message]] = field(default_factory=list)  # what was said before each user's turn
    chats: list[Sequence[Message]] = field(default_factory=list)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        self.chats.append(messages)
        return [1, *self.encode_template("/".join(message["content"] for message in messages)), 2]

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        self.openings.append(messages)
        return [3, *self.encode_template("/".join(message["content"] for message in messages))]

    def encode_template(self, template: str) -> list[int]:
        return [ord(character) for character in template]

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        self.asked.append((len(prompts), sampling))
        self.seeds += seeds
        return [self._say(prompt, seed, sampling) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _say(self, prompt: Sequence[int], seed: int, sampling: Sampling) -> Completion:
        drawn = hashlib.sha256(repr((list(prompt), seed, sampling.temperature)).encode()).digest()
        count = 0 if drawn[0] % 8 == 0 else 1 + drawn[1] % 4
        text = " ".join(WORDS[byte % len(WORDS)] for byte in drawn[2 : 2 + count])
        return Completion(f" {text}\n", "length" if drawn[1] % 5 == 0 else "stop", len(prompt), count)


@pytest.fixture
def teacher() -> Teacher:
    return Teacher()


def make(teacher: Teacher, folder: Path, spec: MagpieSpec = SPEC, batch: str = "first") -> pl.DataFrame:
    return generate(teacher, spec, batch, "embedded", folder, silent).rows.collect()


def test_a_batch_has_the_requested_samples_in_whole_blocks(teacher: Teacher, tmp_path: Path) -> None:
    rows = make(teacher, tmp_path)
    assert rows.schema == INSTRUCTIONS
    assert rows.height == 100
    assert [n for n, sampling in teacher.asked if sampling.max_tokens == 8] == [64, 64]
    assert rows["seed"].to_list() == [row_seed(42, "first", index) for index in range(100)]
    assert rows["row_id"].n_unique() == 100


def test_instructions_come_from_the_template_and_answers_from_the_chat(teacher: Teacher, tmp_path: Path) -> None:
    make(teacher, tmp_path)
    asking, answering = teacher.asked[0][1], teacher.asked[1][1]
    assert (asking.temperature, asking.max_tokens) == (1.0, 8)
    assert (answering.temperature, answering.max_tokens) == (0.7, 9)
    assert asking.stop == answering.stop == FAMILIES["embedded"].stop


def test_no_two_draws_share_a_random_stream(teacher: Teacher, tmp_path: Path) -> None:
    make(teacher, tmp_path)
    assert len(set(teacher.seeds)) == len(teacher.seeds)


def test_empty_instructions_stay_and_are_not_answered(teacher: Teacher, tmp_path: Path) -> None:
    rows = make(teacher, tmp_path)
    empty = rows.filter(pl.col("instruction") == "")
    assert 0 < empty.height < rows.height
    assert set(empty["response"]) == {""}
    assert set(empty["response_tokens"]) == {0}
    assert empty["response_finish_reason"].null_count() == empty.height
    answered = sum(n for n, sampling in teacher.asked if sampling.max_tokens == 9)
    assert answered == sum(n for n, sampling in teacher.asked if sampling.max_tokens == 8) - _empty_in_blocks(tmp_path)


def test_instructions_that_the_chat_template_refuses_are_not_answered(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = teacher.encode_chat

    def strict(messages: Sequence[Message]) -> list[int]:
        if "o" in messages[-1]["content"]:
            raise ChatTemplateError("no such letter, please")
        return encode(messages)

    monkeypatch.setattr(teacher, "encode_chat", strict)
    rows = make(teacher, tmp_path).with_columns(refused=pl.col("instruction").str.contains("o"))
    assert 0 < rows["refused"].sum() < rows.height
    assert set(rows.filter("refused")["response"]) == {""}
    assert rows.filter("refused")["response_finish_reason"].null_count() == rows["refused"].sum()


def _empty_in_blocks(folder: Path) -> int:
    return pl.read_parquet(folder / "*.parquet").filter(pl.col("instruction") == "").height


def test_more_samples_make_only_the_missing_blocks(teacher: Teacher, tmp_path: Path) -> None:
    few = make(teacher, tmp_path)
    teacher.asked.clear()
    many = make(teacher, tmp_path, replace(SPEC, samples=200))
    assert [n for n, sampling in teacher.asked if sampling.max_tokens == 8] == [64, 64]
    assert many.height == 200
    assert_frame_equal(many.head(100), few)


def test_a_second_run_asks_the_teacher_nothing(teacher: Teacher, tmp_path: Path) -> None:
    first = generate(teacher, SPEC, "first", "embedded", tmp_path, silent)
    teacher.asked.clear()
    second = generate(teacher, SPEC, "first", "embedded", tmp_path, silent)
    assert teacher.asked == []
    assert first.new_tokens > 0
    assert second.new_tokens == 0
    assert_frame_equal(first.rows.collect(), second.rows.collect())


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_stopping_points_leave_no_trace_in_the_table(
    teacher: Teacher, tmp_path: Path, stop_after: int
) -> None:  # fault 2
    spec = replace(SPEC, samples=250)
    whole = make(Teacher(), tmp_path / "whole", spec)
    (tmp_path / "parts").mkdir()
    make(teacher, tmp_path / "parts", replace(spec, samples=64 * stop_after))
    assert_frame_equal(make(teacher, tmp_path / "parts", spec), whole)


@pytest.mark.parametrize("damage", ["delete", "flip", "truncate"])
def test_a_damaged_shard_alone_is_made_again(teacher: Teacher, tmp_path: Path, damage: str) -> None:  # faults 2 and 3
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


def test_two_batches_share_no_row(teacher: Teacher, tmp_path: Path) -> None:
    first, second = (make(teacher, tmp_path, batch=batch) for batch in ("first", "second"))
    assert set(first["row_id"]).isdisjoint(second["row_id"])
    assert set(first["seed"]).isdisjoint(second["seed"])


@pytest.mark.parametrize("other", [Teacher(model="other"), Teacher(revision="r2")])
def test_another_teacher_makes_rows_of_its_own(teacher: Teacher, tmp_path: Path, other: Teacher) -> None:
    first = make(teacher, tmp_path)
    second = make(other, tmp_path)
    assert set(first["row_id"]).isdisjoint(second["row_id"])


def test_another_engine_makes_its_own_text_under_the_same_ids(teacher: Teacher, tmp_path: Path) -> None:
    other = Teacher(engine="fake 2")
    first, second = make(teacher, tmp_path), make(other, tmp_path)
    assert first["row_id"].to_list() == second["row_id"].to_list()
    assert len(other.seeds) == len(teacher.seeds)


def test_headings_are_banned_where_they_are_one_token(teacher: Teacher, tmp_path: Path) -> None:
    generate(teacher, replace(SPEC, samples=1), "first", "llama3", tmp_path, silent)
    # the fake has one token a character, so of "#", "##", "###", "####" the first alone is one token
    assert teacher.asked[0][1].banned_first == (ord("#"),)
    assert teacher.asked[1][1].banned_first == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples", -1), ("max_response_tokens", 0), ("temperature", -0.1), ("response_temperature", 2.1), ("top_p", 0.0)],
)
def test_a_spec_that_cannot_work_names_its_field(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"MagpieSpec.{name}"):
        replace(MagpieSpec(), **{name: value})


def test_an_unknown_family_names_those_there_are(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model family must be one of llama3"):
        generate(teacher, SPEC, "first", "alien", tmp_path, silent)


def test_a_share_of_the_instructions_gets_constraints_before_they_are_answered(
    teacher: Teacher, tmp_path: Path
) -> None:
    plain = make(teacher, tmp_path / "plain")
    teacher.chats.clear()
    rows = make(teacher, tmp_path / "constrained", replace(SPEC, constrained_share=0.5))
    constrained = 0
    for before, after in zip(plain["instruction"], rows["instruction"], strict=True):
        text, constraints = split_constraints(after)
        constrained += bool(constraints)
        assert text.rstrip(".") == before
        assert not (constraints and not before)
    assert 30 <= constrained <= 60  # of 100, of which 88 or so say something: 44, with a standard error of 5
    answered = {chat[-1]["content"] for chat in teacher.chats}
    assert answered >= {text for text in rows["instruction"] if text}
    assert make(teacher, tmp_path / "none", replace(SPEC, constrained_share=0.0))["row_id"].equals(plain["row_id"])


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_constraints_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"MagpieSpec\.constrained_share must be in"):
        MagpieSpec(constrained_share=share)


def test_an_unacceptable_response_is_sampled_again(teacher: Teacher, tmp_path: Path) -> None:
    once = make(teacher, tmp_path / "once", replace(SPEC, constrained_share=0.5))
    first = sum(rows for rows, _ in teacher.asked)
    again = make(teacher, tmp_path / "again", replace(SPEC, constrained_share=0.5, response_attempts=3))
    assert again["instruction"].equals(once["instruction"])
    kept = {True: 0, False: 0}
    for before, after in zip(once.to_dicts(), again.to_dicts(), strict=True):
        if _acceptable(before):
            assert after["response"] == before["response"]
        kept[_acceptable(after)] += bool(after["response_finish_reason"])
    accepted = sum(_acceptable(row) for row in once.to_dicts())
    assert kept[True] > accepted
    assert sum(rows for rows, _ in teacher.asked) - 2 * first >= kept[False]  # each bad one was tried again
    assert not set(once["row_id"]) & set(again["row_id"])


def _acceptable(row: dict[str, Any]) -> bool:
    constraints = split_constraints(row["instruction"])[1]
    return row["response_finish_reason"] == "stop" and all(asked.holds(row["response"]) for asked in constraints)


def test_new_tokens_count_replaced_responses(teacher: Teacher, tmp_path: Path) -> None:
    spec = replace(SPEC, samples=128)  # whole blocks
    once = generate(teacher, spec, "first", "llama3", tmp_path / "once", silent)
    thrice = generate(teacher, replace(spec, response_attempts=3), "first", "llama3", tmp_path / "thrice", silent)
    rows = once.rows.collect()
    assert once.new_tokens == rows["instruction_tokens"].sum() + rows["response_tokens"].sum()
    kept = thrice.rows.collect()
    assert thrice.new_tokens > kept["instruction_tokens"].sum() + kept["response_tokens"].sum()


def test_a_batch_of_no_rows_asks_the_teacher_nothing(teacher: Teacher, tmp_path: Path) -> None:
    generated = generate(teacher, replace(SPEC, samples=0), "first", "llama3", tmp_path, silent)
    assert (generated.rows.collect().height, generated.new_tokens, teacher.asked) == (0, 0, [])
    assert generated.rows.collect_schema() == INSTRUCTIONS
