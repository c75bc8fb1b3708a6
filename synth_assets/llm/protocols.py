"""What stages ask of the machine; `resources` and the tests' fakes provide it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import polars as pl

from synth_assets.schemas.records import AdapterRecord, Metric

FinishReason = Literal["stop", "length"]
Message = Mapping[str, str]  # {"role": ..., "content": ...}
Refusal = Callable[[Sequence[Message], str], str]  # turns and an answer -> why a chat template refuses them, or ""


@dataclass(frozen=True)
class Sampling:
    """How text is drawn. Temperature 0 is greedy; `banned_first` are token ids that may not come first."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...] = ()  # control tokens that end a text, beside the tokenizer's own
    banned_first: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One generated text, without its stop token."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class TextGenerator(Protocol):
    """A language model that continues prompts, one independent random stream per row.

    The same (prompt, seed, sampling) gives the same text whatever else is in the call, up to rounding in the
    forward pass; callers that need byte-identical text always pass the same block of rows.
    """

    @property
    def model(self) -> str:
        """Hub name, or the folder's name."""
        ...

    @property
    def revision(self) -> str:
        """Commit, or the hash of the files."""
        ...

    @property
    def engine(self) -> str:
        """Name and version, such as "transformers 5.23.0"."""
        ...

    @property
    def context_tokens(self) -> int:
        """How many tokens a prompt and its completion may have together."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the assistant speaks; text of a message never becomes a control token."""
        ...

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the user speaks next; ValueError where the chat template refuses these turns."""
        ...

    def encode_template(self, template: str) -> list[int]:
        """Token ids of trusted template text, in which control tokens are meant."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order. ValueError where the lengths differ."""
        ...


class RewardModel(Protocol):
    """Scores a response to an instruction; higher is better, in the model's own unit."""

    @property
    def model(self) -> str:
        """Hub name, or the folder's name."""
        ...

    @property
    def revision(self) -> str:
        """Commit, or the hash of the files."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        """(n,) float64 rewards of (instruction, response); NaN where the model gave one.

        `histories` are the turns before each instruction; none at all where no pair has any.
        """
        ...


class Tracker(Protocol):
    """Runs, registered versions and aliases; MLflow in production."""

    def log_training(
        self, record: AdapterRecord, folder: Path, curve: Sequence[Mapping[str, float]], tags: Mapping[str, str]
    ) -> tuple[str, str]:
        """Log one training and register the adapter; returns (run id, version).

        Idempotent by `record.fingerprint`: the same adapter again returns the run and version that exist.
        """
        ...

    def log_scores(self, metrics: Sequence[Metric], items: pl.DataFrame, versions: Mapping[str, str]) -> str:
        """Log metrics that the items prove, attach them to `versions` (model -> version); returns the run id.

        Raises ValueError naming the first metric whose value, n or interval the items do not give.
        """
        ...

    def alias(self, name: str) -> str | None:
        """The version that `name` ("champion", "challenger") points to, or None."""
        ...

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Point `name` to `version` and tag that version with the evidence."""
        ...

    def version_tags(self, version: str) -> dict[str, str]:
        """The tags of a version; KeyError where it does not exist."""
        ...


def refuses_nothing(_turns: Sequence[Message], _answer: str) -> str:
    """Stand for a chat template that takes every conversation."""
    return ""
