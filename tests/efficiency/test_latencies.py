import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from checks.efficiency import MAX_OTHER_CORES
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.stages.efficiency.latencies import (
    LATENCIES,
    LatencySpec,
    OtherLoad,
    TimedVariant,
    latencies,
    percentiles,
)
from tests.support.fakes import Echo, silent

PROMPTS = ["one", "two", "three"]
SPEC = LatencySpec(prompts=3, warm_up=2, max_tokens=7)


class Slow(Echo):
    """Takes a hundredth of a second for each answer of five tokens, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, Sampling]] = []

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        return [len(message["content"]) for message in messages]

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        time.sleep(0.01)
        self.asked.append((len(prompts), sampling))
        return [Completion("text", "stop", len(prompt), 5) for prompt in prompts]


def test_percentiles_by_hand() -> None:
    result = percentiles([float(i) for i in range(1, 102)])
    assert result == {"p50_s": 51.0, "p95_s": 96.0, "p99_s": 100.0}


def test_one_prompt_at_a_time_greedily_after_a_warm_up(tmp_path: Path) -> None:
    generator = Slow()
    timed = TimedVariant("r8-all-none-s42", "r8-all-none", "w", "fake", lambda: generator)
    result = latencies([timed], PROMPTS, SPEC, folder=tmp_path, progress=silent, again="")
    assert result.schema == LATENCIES
    assert [rows for rows, _ in generator.asked] == [1] * (2 + 3)
    assert {(s.temperature, s.max_tokens) for _, s in generator.asked} == {(0.0, 7)}
    row = result.row(0, named=True)
    assert (row["prompts"], row["new_tokens"]) == (3, 15)
    assert 0.01 <= row["p50_s"] <= row["p95_s"] <= row["p99_s"] < 1.0
    assert 15 / 3 < row["tokens_per_s"] <= 15 / 0.03


def test_equal_weights_are_timed_once_under_whatever_name(tmp_path: Path) -> None:
    generator = Slow()
    timed = TimedVariant("r8-all-none-s42", "r8-all-none", "w", "fake", lambda: generator)

    def measure(variant: TimedVariant, again: str = "") -> dict[str, object]:
        result = latencies([variant], PROMPTS, SPEC, folder=tmp_path, progress=silent, again=again)
        return result.row(0, named=True)

    first = measure(timed)
    asked = len(generator.asked)
    assert measure(replace(timed, variant="another", cell="another")) == first | {
        "variant": "another",
        "cell": "another",
    }
    assert len(generator.asked) == asked
    measure(replace(timed, weights="v"))
    assert len(generator.asked) == 2 * asked
    measure(timed, again="once more")
    assert len(generator.asked) == 3 * asked


def test_own_work_is_no_other_load() -> None:
    load = OtherLoad()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    assert load.cores() >= 0.0
    assert MAX_OTHER_CORES < 1


@pytest.mark.parametrize("wrong", [{"prompts": 0}, {"warm_up": -1}, {"max_tokens": 0}])
def test_a_timing_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LatencySpec(**wrong)
