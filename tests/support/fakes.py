"""Small fakes that tests of several stages share."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from resources.reward import RewardModels
from synth_assets.llm.protocols import Completion, Message, RewardModel, Sampling
from synth_assets.schemas.records import ModelRecord


def silent(_: str) -> None:
    """Discard progress lines."""


def jsonl(path: Path, *rows: object) -> Path:
    """Write one line of JSON for each row; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


class Clock:
    """A clock whose seconds pass only when a test says so."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Echo:
    """A text generator that answers with its seed, after a prefix; every prompt is one token."""

    engine, revision, context_tokens = "fake 1", "r1", 256

    def __init__(self, prefix: str = "", model: str = "echo") -> None:
        self.prefix, self.model = prefix, model

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        return [1]

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_chat(messages)

    def encode_template(self, template: str) -> list[int]:
        return [2]

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        return [Completion(f"{self.prefix}{seed}", "stop", 1, 2) for seed in seeds]


class LastDigit:
    """A reward model whose reward is the last digit of the response."""

    model, revision = "digit", "r1"

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        return np.array([float(response[-1]) for _, response in pairs])


class NoReward(LastDigit):
    """A reward model that overflowed."""

    revision = "broken"

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        return np.full(len(pairs), np.nan)


class DigitRewards(RewardModels):
    """Loads `LastDigit`, or `NoReward` if it is broken."""

    broken: bool = False

    def load(self, record: ModelRecord) -> RewardModel:
        return NoReward() if self.broken else LastDigit()
