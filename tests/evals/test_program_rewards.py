"""The reward of a program: the share of constraints that hold, nothing for an answer beside the point."""

import numpy as np
import pytest

from synth_assets.evals.program_rewards import ConstraintReward, program_reward, reward
from synth_assets.llm.model_files import ModelFilesError

ASKED = "Why do planets shine?"


@pytest.mark.parametrize(
    ("instruction", "response", "expected"),
    [
        (ASKED, "A planet reflects the light of a star.", 1.0),
        (ASKED, "I like cheese and bread.", 0.0),  # shares no content word
        (ASKED, "Planets shine.", 0.0),  # two words
        (ASKED, "You ask: why do planets shine? Planets do.", 0.0),  # repeats the question
        (f"{ASKED} Write without any digits.", "A planet reflects light.", 1.0),
        (f"{ASKED} Write without any digits.", "All 8 planets reflect light.", 0.0),
        (f"{ASKED} Write without any digits. Put in at least one colon.", "A planet reflects light.", 0.5),
        ("What is 2 + 2?", "It is 4, of course.", 1.0),  # an instruction without content words has every answer
    ],
)
def test_a_reward_by_hand(instruction: str, response: str, expected: float) -> None:
    assert reward(instruction, response) == expected


def test_scores_come_in_order_whatever_was_said_before() -> None:
    pairs = [(ASKED, "I like cheese and bread."), (ASKED, "A planet reflects light.")]
    turns = [[{"role": "user", "content": "Hello."}], []]
    scores = ConstraintReward().score(pairs, turns)
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.0, 1.0]
    assert len(ConstraintReward().revision) == 16


def test_an_unknown_program_names_those_there_are() -> None:
    assert program_reward("program:constraints").model == "constraints"
    with pytest.raises(ModelFilesError, match="no reward 'program:other'; there are program:constraints"):
        program_reward("program:other")
