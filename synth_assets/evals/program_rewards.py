"""Rewards that a program computes, beside those of reward models: no weights, exact, the same on every machine."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from synth_assets.evals.constraints import mentions, words
from synth_assets.evals.training_constraints import Asked, constraints_revision, split_constraints
from synth_assets.llm.model_files import PROGRAM, ModelFilesError
from synth_assets.llm.protocols import Message, RewardModel
from synth_assets.schemas.serialization import fingerprint

REWARD_VERSION = 1  # raise it when the same text would get another reward
LEAST_WORDS = 3  # of an answer that says anything, as in the suite instruction_following
CONTENT_LETTERS = 4  # shorter words say little about the topic
STEM_LETTERS = 5  # "planting" and "plants" count as one
COVER_WEIGHT = 0.2  # of the instruction's content words in the response: below any margin between constraints
FUNCTION_WORDS = frozenset(
    words(
        "about also been before being both cannot could describe does during each explain from give have having here "
        "into just know like make many more most much must only other over please should some such than that their "
        "them then there these they this those through under using very want were what when where which while will "
        "with without would write your yours"
    )
)


class ConstraintReward:
    """The share of an instruction's constraints that a response holds, and a little for its content words.

    A response that is off topic gets 0. On topic is what the suite instruction_following takes for it: three words, one
    of them a content word of the instruction, and not the instruction itself. An instruction without constraints counts
    as held. The share of content words that a response takes up orders responses that are equal otherwise; it cannot
    make a pair alone.
    """

    model = "constraints"

    @property
    def revision(self) -> str:
        """A hash of the constraints and of the version of the program."""
        return fingerprint(REWARD_VERSION, constraints_revision())

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        """(n,) float64 rewards; earlier turns are not read."""
        del histories
        return np.array([reward(instruction, response) for instruction, response in pairs], np.float64)


def reward(instruction: str, response: str) -> float:
    """Return the reward of one response, from 0 to 1 + COVER_WEIGHT."""
    asked, constraints = split_constraints(instruction)
    if not on_topic(asked, response):
        return 0.0
    content = _stems(words(asked))
    cover = len(content & _stems(words(response))) / len(content) if content else 0.0
    return (held_share(constraints, response) if constraints else 1.0) + COVER_WEIGHT * cover


def held_share(constraints: Sequence[Asked], response: str) -> float:
    """Return the share of constraints that hold, 0 to 1; ZeroDivisionError where there are none."""
    return sum(constraint.holds(response) for constraint in constraints) / len(constraints)


def on_topic(asked: str, response: str) -> bool:
    """Return whether a response says something about what was asked instead of repeating it."""
    question, said = words(asked), words(response)
    if len(said) < LEAST_WORDS or (len(question) >= LEAST_WORDS and mentions(response, asked)):
        return False
    content = _stems(question)
    return not content or bool(content & _stems(said))


def _stems(found: Sequence[str]) -> set[str]:
    return {w[:STEM_LETTERS] for w in found if len(w) >= CONTENT_LETTERS and w not in FUNCTION_WORDS}


PROGRAM_REWARDS: Mapping[str, Callable[[], RewardModel]] = {"constraints": ConstraintReward}
"""By the name after `program:`."""


def program_reward(location: str) -> RewardModel:
    """Return the reward at `program:NAME`; ModelFilesError names those there are."""
    name = location.removeprefix(PROGRAM)
    if name not in PROGRAM_REWARDS:
        known = ", ".join(f"{PROGRAM}{each}" for each in PROGRAM_REWARDS)
        raise ModelFilesError(f"no reward {location!r}; there are {known}")
    return PROGRAM_REWARDS[name]()
