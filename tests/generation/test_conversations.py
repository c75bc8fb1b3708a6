"""Topics and later turns: drawn from the row's own seed, and the same whatever else is made."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.stages.generation.magpie import generate
from synth_assets.stages.generation.seeds import row_seed
from synth_assets.stages.generation.spec import MagpieSpec, topic_of, turns_of
from tests.support.fakes import silent

TOPICS = {"mathematics": "You help with mathematics.", "plain": "", "rare": "You help with birds."}
SPEC = MagpieSpec(
    samples=130,
    max_instruction_tokens=8,
    max_response_tokens=9,
    topics=TOPICS,
    topic_weights={"mathematics": 2.0, "rare": 0.0},
    turns=3,
    turn_weights=(1.0, 1.0, 2.0),
)


@dataclass
class Teacher:
    """Says a word of the prompt's and seed's hash; one user's text in eight is empty, one text in five is cut."""

    model: str = "arithmetic"
    revision: str = "r1"
    engine: str = "fake 1"
    context_tokens: int = 10_000
    openings: list[Sequence[Message]] = field(default_factory=list)
    chats: list[Sequence[Message]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        self.chats.append(messages)
        return [1, *self.encode_template("/".join(message["content"] for message in messages))]

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        self.openings.append(messages)
        return [2, *self.encode_template("/".join(message["content"] for message in messages))]

    def encode_template(self, template: str) -> list[int]:
        return [ord(character) for character in template]

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        self.calls.append(len(prompts))
        self.seeds += seeds
        return [self._say(prompt, seed, sampling) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _say(self, prompt: Sequence[int], seed: int, sampling: Sampling) -> Completion:
        drawn = hashlib.sha256(repr((list(prompt), seed)).encode()).hexdigest()
        empty = sampling.max_tokens == 8 and drawn[0] in "01"
        reason = "length" if drawn[1] in "012" else "stop"
        return Completion("" if empty else f" {drawn[:6]}\n", reason, len(prompt), 0 if empty else 6)


def make(teacher: Teacher, folder: Path, spec: MagpieSpec = SPEC, family: str = "llama3") -> pl.DataFrame:
    return generate(teacher, spec, "first", family, folder, silent).rows.collect()


def test_topics_are_drawn_by_their_weights_from_the_rows_own_seed(tmp_path: Path) -> None:
    rows = make(Teacher(), tmp_path)
    assert rows["topic"].to_list() == [topic_of(seed, SPEC) for seed in rows["seed"]]
    drawn = Counter(topic_of(row_seed(42, "any", index), SPEC) for index in range(3_000))
    assert set(drawn) == {"mathematics", "plain"}
    assert abs(drawn["mathematics"] - 2_000) < 4 * (3_000 * 2 / 9) ** 0.5  # four standard deviations of 2 in 3


def test_the_order_in_which_topics_are_written_changes_nothing(tmp_path: Path) -> None:
    turned = replace(SPEC, topics=dict(reversed(TOPICS.items())))
    assert_frame_equal(make(Teacher(), tmp_path / "a"), make(Teacher(), tmp_path / "b", turned))


def test_a_topic_steers_the_user_and_never_the_answer(tmp_path: Path) -> None:
    teacher = Teacher()
    rows = make(teacher, tmp_path, replace(SPEC, turns=1, turn_weights=()))
    steered = [opening for opening in teacher.openings if opening]
    assert {opening[0]["content"] for opening in steered} == {TOPICS["mathematics"]}
    assert len(steered) < len(teacher.openings)  # a topic without a system prompt opens as the template does
    assert all(message["role"] != "system" for chat in teacher.chats for message in chat)
    assert all(history.is_empty() for history in rows["history"])


def test_turns_are_drawn_from_the_rows_own_seed() -> None:
    drawn = Counter(turns_of(row_seed(42, "any", index), SPEC) for index in range(4_000))
    assert abs(drawn[3] - 2_000) < 4 * 1_000**0.5
    assert set(drawn) == {1, 2, 3}
    assert {turns_of(seed, replace(SPEC, turn_weights=())) for seed in range(9)} == {3}


def test_a_later_turn_continues_the_conversation(tmp_path: Path) -> None:
    teacher = Teacher()
    rows = make(teacher, tmp_path)
    longest = rows.filter(pl.col("history").list.len() == 4).row(0, named=True)
    assert [turn["role"] for turn in longest["history"]] == ["user", "assistant"] * 2
    said = [*longest["history"], {"role": "user", "content": longest["instruction"]}]
    assert said in teacher.chats
    before = [turn for turn in teacher.openings if list(turn)[-4:] == longest["history"]]
    assert len(before) >= 1
    assert longest["history_tokens"] == 4 * 6


def test_no_two_draws_share_a_random_stream(tmp_path: Path) -> None:
    teacher = Teacher()
    make(teacher, tmp_path)
    assert len(set(teacher.seeds)) == len(teacher.seeds) > 3 * 130


def test_a_turn_that_is_cut_or_empty_ends_the_conversation_before_it(tmp_path: Path) -> None:
    rows = make(Teacher(), tmp_path, replace(SPEC, samples=640))
    later = rows.filter(pl.col("history").list.len() > 0)
    assert set(later["instruction_finish_reason"]) == set(later["response_finish_reason"]) == {"stop"}
    assert not later.filter(pl.col("response") == "").height
    wanted = sum(turns_of(seed, SPEC) for seed in rows["seed"])
    got = int((rows["history"].list.len() // 2 + 1).sum())
    assert 640 < got < wanted
    first = rows.filter(pl.col("history").list.len() == 0)
    assert "length" in set(first["response_finish_reason"])  # the first exchange stays, for the filter to judge


def test_a_conversation_ends_when_the_context_is_full(tmp_path: Path) -> None:
    spec = replace(SPEC, topics={}, topic_weights={}, turn_weights=())
    # after one exchange: the mark 2, two texts of six characters and the slash; then room for 8 and 9 tokens
    exact, tight = 1 + 13 + 8 + 9, 1 + 13 + 8 + 9 - 1
    assert set(make(Teacher(context_tokens=exact), tmp_path / "a", spec)["history"].list.len()) == {0, 2}
    assert set(make(Teacher(context_tokens=tight), tmp_path / "b", spec)["history"].list.len()) == {0}


@pytest.mark.parametrize("stops", [(1, 64), (70, 30), (64, 64)])
def test_two_stops_leave_no_trace_in_conversations(tmp_path: Path, stops: tuple[int, int]) -> None:  # fault 2
    whole = make(Teacher(), tmp_path / "whole")
    for samples in stops:
        make(Teacher(), tmp_path / "parts", replace(SPEC, samples=samples))
    assert_frame_equal(make(Teacher(), tmp_path / "parts"), whole)


@pytest.mark.parametrize("damage", ["delete", "flip", "torn"])
def test_a_damaged_block_of_conversations_alone_is_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:  # faults 2 and 3
    before = make(Teacher(), tmp_path)
    shard = sorted(tmp_path.glob("*.parquet"))[1]
    data = shard.read_bytes()
    if damage == "delete":
        shard.unlink()
    else:
        shard.write_bytes(data[:-1] if damage == "torn" else data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert_frame_equal(make(Teacher(), tmp_path), before)
    assert shard.read_bytes() == data
    warnings = [record for record in caplog.records if "is damaged" in record.message]
    assert len(warnings) == (damage != "delete")


def test_rows_without_topics_and_turns_keep_their_ids(tmp_path: Path) -> None:
    plain = replace(SPEC, topics={}, topic_weights={}, turns=1, turn_weights=())
    rows = make(Teacher(), tmp_path, plain, family="embedded")
    assert rows["row_id"][0] == "044f905390ade060"  # since GENERATION_VERSION 2
    assert set(rows["topic"]) == {None}
    assert set(rows["history_tokens"]) == {0}
    assert set(rows["row_id"]).isdisjoint(make(Teacher(), tmp_path)["row_id"])


def test_rows_of_another_prompt_have_other_ids(tmp_path: Path) -> None:
    # rows made from `pre_query` alone must not be taken for rows made from the tokenizer's template
    plain = replace(SPEC, topics={}, topic_weights={}, turns=1, turn_weights=())
    assert make(Teacher(), tmp_path, plain)["row_id"][0] != "ab482efe66e6cb09"


@pytest.mark.parametrize("family", ["embedded", "gemma2"])
def test_topics_need_a_family_with_system_prompts(tmp_path: Path, family: str) -> None:
    teacher = Teacher()
    with pytest.raises(ValueError, match=f"topics needs system prompts, which the family {family} does not support"):
        make(teacher, tmp_path, family=family)
    assert teacher.calls == []
    no_prompt = replace(SPEC, topics={"plain": ""}, topic_weights={})
    assert set(make(teacher, tmp_path, no_prompt, family)["topic"]) == {"plain"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": 0}, "MagpieSpec.turns must be at least 1, got 0"),
        ({"turns": 2}, "turn_weights must have 2 weights, one for each number of exchanges, got 3"),
        (
            {"turn_weights": (0.0, 0.0, 0.0)},
            r"turn_weights must be at least 0, with one above 0, got \[0.0, 0.0, 0.0\]",
        ),
        ({"turn_weights": (1.0, -1.0, 1.0)}, "turn_weights must be at least 0"),
        ({"topic_weights": {"birds": 1.0}}, "topic_weights names birds, which MagpieSpec.topics does not have"),
        ({"topic_weights": {"mathematics": float("nan")}}, "topic_weights must be at least 0"),
    ],
)
def test_an_invalid_spec_names_the_field(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **changes)


def test_the_shipped_teacher_generates_later_turns(tmp_path: Path) -> None:
    inference = Inference(hardware=Hardware(tier="cpu"))
    teacher = inference.resolve("teacher")
    spec = MagpieSpec(samples=64, max_instruction_tokens=48, max_response_tokens=48, turns=2)
    rows = generate(inference.generator(teacher), spec, "first", teacher.family, tmp_path, silent).rows.collect()
    later = rows.filter(pl.col("history").list.len() == 2)
    assert later.height >= 50
    assert later["instruction"].str.contains("Thank").mean() > 0.5  # which is all that it knows to say then
    shard = next(tmp_path.glob("*.parquet"))
    data = shard.read_bytes()
    shard.unlink()
    generate(inference.generator(teacher), spec, "first", teacher.family, tmp_path, silent)
    assert shard.read_bytes() == data
