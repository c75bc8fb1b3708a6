"""A teacher that is arithmetic: texts depend on the prompt, the seed and the sampling alone, as the contract says."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from synth_assets.protocols import Completion, Message, Sampling

WORDS = ("sum", "name", "city", "river", "colour", "opposite", "capital", "number")


@dataclass
class ArithmeticTeacher:
    """Says a few words drawn from a hash; every eighth text is empty, every fifth ends by length."""

    model: str = "arithmetic"
    revision: str = "r1"
    engine: str = "fake 1"
    asked: list[tuple[int, Sampling]] = field(default_factory=list)  # rows and sampling of each call
    seeds: list[int] = field(default_factory=list)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        return [1, *self.encode_template(messages[-1]["content"]), 2]

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
def teacher() -> ArithmeticTeacher:
    return ArithmeticTeacher()
