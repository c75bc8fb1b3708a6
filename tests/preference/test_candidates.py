from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from synth_assets.llm.chat_encoding import ChatTemplateError
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.schemas.tables import CANDIDATES, SFT_ROWS
from synth_assets.stages.preference.candidates import (
    CandidateSpec,
    blocks_by_content,
    instructions_to_sample,
    sample_candidates,
    score_candidates,
)
from tests.support.fakes import silent

SPEC = CandidateSpec(temperatures=(0.6, 1.2), max_response_tokens=9)


@dataclass
class Teacher:
    """Answers with the temperature and the seed, so that each draw can be told apart."""

    model: str = "arithmetic"
    revision: str = "r1"
    engine: str = "fake 1"
    context_tokens: int = 256
    rows_asked: list[int] = field(default_factory=list)
    chats: list[Sequence[Message]] = field(default_factory=list)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        if messages[0]["role"] == "system":
            raise ChatTemplateError("System role not supported")
        self.chats.append(messages)
        return self.encode_template(messages[-1]["content"])

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_chat(messages)

    def encode_template(self, template: str) -> list[int]:
        return [ord(character) for character in template]

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        self.rows_asked.append(len(prompts))
        texts = [
            f"{bytes(prompt).decode()} at {sampling.temperature}, {seed}"
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [Completion(text, "stop", 1, 3) for text in texts]


@dataclass
class Judge:
    """The reward is the length of the response; NaN for instructions that say so."""

    model: str = "judge"
    revision: str = "r1"
    pairs_scored: int = 0
    histories: list[Sequence[Message]] = field(default_factory=list)

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        self.pairs_scored += len(pairs)
        self.histories += histories
        return np.array([np.nan if "nan" in asked else len(said) for asked, said in pairs], dtype=np.float64)


def sft(*instructions: str, split: str = "train", history: Sequence[dict[str, str]] = ()) -> pl.DataFrame:
    rows = [
        {"row_id": f"row-{text}", "instruction": text, "group": f"g-{text}", "split": split, "history": list(history)}
        for text in instructions
    ]
    return pl.DataFrame(rows, schema=SFT_ROWS)


def many(count: int) -> pl.DataFrame:
    return instructions_to_sample(sft(*(f"q{n}" for n in range(count))).lazy(), SPEC)


def candidates(teacher: Teacher, judge: Judge, rows: pl.DataFrame, folder: Path) -> pl.DataFrame:
    sampled = sample_candidates(rows, teacher, SPEC, folder, silent)
    return score_candidates(sampled.paths, judge, folder, silent).collect()


def test_each_instruction_gets_one_response_per_temperature(tmp_path: Path) -> None:
    table = candidates(Teacher(), Judge(), many(3), tmp_path)
    assert table.schema == CANDIDATES
    assert table["row_id"].to_list() == ["row-q0", "row-q0", "row-q1", "row-q1", "row-q2", "row-q2"]
    assert table["temperature"].to_list() == [0.6, 1.2] * 3
    assert table["candidate_id"].n_unique() == table["seed"].n_unique() == 6
    assert table["reward"].to_list() == [float(len(text)) for text in table["response"]]


def test_samples_at_the_same_temperature_differ(tmp_path: Path) -> None:
    spec = replace(SPEC, temperatures=(1.0, 1.0, 1.0))
    (path,) = sample_candidates(many(2), Teacher(), spec, tmp_path, silent).paths
    table = pl.read_parquet(path)
    assert table["seed"].n_unique() == table["candidate_id"].n_unique() == table["response"].n_unique() == 6


def test_nan_rewards_stay_nan(tmp_path: Path) -> None:  # fault 18
    rows = instructions_to_sample(sft("nan", "good").lazy(), SPEC)
    rewards = candidates(Teacher(), Judge(), rows, tmp_path)["reward"]
    assert rewards.is_nan().to_list() == [True, True, False, False]


def test_validation_rows_get_no_candidates() -> None:
    rows = pl.concat([sft("train"), sft("held out", split="validation")])
    assert instructions_to_sample(rows.lazy(), SPEC)["instruction"].to_list() == ["train"]


def test_earlier_turns_are_part_of_the_prompt_and_of_the_score(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    teacher, judge = Teacher(), Judge()
    rows = candidates(teacher, judge, pl.concat([sft("And then?", history=turns), sft("Alone")]), tmp_path)
    by_instruction = dict(rows.select("instruction", "history").iter_rows())
    assert by_instruction == {"And then?": turns, "Alone": []}
    assert [message["content"] for message in teacher.chats[0]] == ["Hi", "Hello", "And then?"]
    assert sorted(len(history) for history in judge.histories) == [0, 0, 2, 2]


def test_an_instruction_that_fills_the_context_gets_no_candidates(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = pl.concat([sft("x" * 255), sft("y" * 256), sft("short", history=turns)])
    table = candidates(Teacher(), Judge(), rows, tmp_path)  # the fake has a token a character, and 256 in all
    assert set(table["instruction"]) == {"x" * 255, "short"}


def test_an_instruction_that_the_chat_template_refuses_gets_no_candidates(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "Be short."}]
    table = candidates(Teacher(), Judge(), pl.concat([sft("one", history=system), sft("two")]), tmp_path)
    assert set(table["instruction"]) == {"two"}


def test_a_sample_keeps_order_and_most_of_itself_when_data_grows() -> None:
    spec = replace(SPEC, instructions=50)
    small, large = (instructions_to_sample(sft(*(f"q{n}" for n in range(size))).lazy(), spec) for size in (100, 120))
    assert small.height == large.height == 50
    assert [int(text[1:]) for text in small["instruction"]] == sorted(int(text[1:]) for text in small["instruction"])
    newcomers = [text for text in large["instruction"] if int(text[1:]) >= 100]
    assert len(set(small["instruction"]) - set(large["instruction"])) == len(newcomers)


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    first = candidates(Teacher(), Judge(), many(200), tmp_path)
    teacher, judge = Teacher(), Judge()
    assert_frame_equal(candidates(teacher, judge, many(200), tmp_path), first)
    assert (teacher.rows_asked, judge.pairs_scored) == ([], 0)


def test_a_removed_row_changes_one_block(tmp_path: Path) -> None:
    rows = many(600)
    candidates(Teacher(), Judge(), rows, tmp_path)
    teacher = Teacher()
    fewer = rows.filter(pl.col("row_id") != "row-q5")
    after = candidates(teacher, Judge(), fewer, tmp_path)
    blocks = [len(block) for block in blocks_by_content(fewer.to_dicts())]
    assert len(blocks) > 4
    assert teacher.rows_asked == [blocks[0]] * 2
    assert after["row_id"].unique(maintain_order=True).to_list() == fewer["row_id"].to_list()


def test_blocks_hold_every_row_once_and_stay_small() -> None:
    rows = [{"row_id": str(n)} for n in range(5_000)]
    blocks = list(blocks_by_content(rows))
    assert [row for block in blocks for row in block] == rows
    assert max(len(block) for block in blocks) == 128
    assert list(blocks_by_content([])) == []


def test_another_reward_model_scores_the_same_responses(tmp_path: Path) -> None:
    first = candidates(Teacher(), Judge(), many(100), tmp_path)
    teacher, judge = Teacher(), Judge(revision="r2")
    second = candidates(teacher, judge, many(100), tmp_path)
    assert (teacher.rows_asked, judge.pairs_scored) == ([], 200)
    assert_frame_equal(first, second)


def test_only_a_damaged_block_is_computed_again(tmp_path: Path) -> None:  # fault 2
    rows = many(600)
    before = candidates(Teacher(), Judge(), rows, tmp_path)
    shards = sample_candidates(rows, Teacher(), SPEC, tmp_path, silent).paths
    data = shards[1].read_bytes()
    shards[1].write_bytes(data[:99] + bytes([data[99] ^ 4]) + data[100:])
    teacher, judge = Teacher(), Judge()
    assert_frame_equal(candidates(teacher, judge, rows, tmp_path), before)
    assert len(teacher.rows_asked) == len(SPEC.temperatures)
    assert judge.pairs_scored == 0


def test_no_instructions_give_an_empty_table(tmp_path: Path) -> None:
    table = candidates(Teacher(), Judge(), many(0), tmp_path)
    assert (table.height, table.schema) == (0, CANDIDATES)


@pytest.mark.parametrize(
    ("field_name", "value"),
    [
        ("instructions", 0),
        ("temperatures", (1.0,)),
        ("temperatures", (0.0, 1.0)),
        ("max_response_tokens", 0),
        ("top_p", 2),
    ],
)
def test_an_invalid_spec_names_its_field(field_name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"CandidateSpec.{field_name}"):
        replace(CandidateSpec(), **{field_name: value})
