"""Protocols for generators, reward models and trackers, implemented by `resources` and by test fakes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import polars as pl

from synth_assets.schemas.records import AdapterRecord, Metric

FinishReason = Literal["stop", "length"]
Message = Mapping[str, str]  # {"role": ..., "content": ...}
Refusal = Callable[[Sequence[Message], str], str]  # (turns, answer) -> why the chat template rejects them, or ""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. Temperature 0 is greedy; `banned_first` lists token ids banned as the first token."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...] = ()  # control tokens that end a text, besides the tokenizer's own
    banned_first: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One generated text, without its stop token."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class TextGenerator(Protocol):
    """Language model that continues prompts, with an independent random stream per row.

    The same (prompt, seed, sampling) gives the same text in any batch, up to rounding in the forward pass. Callers that
    need byte-identical text must pass the same block of rows.
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
        """Return the engine's name and version, such as "transformers 5.23.0"."""
        ...

    @property
    def context_tokens(self) -> int:
        """Return the maximum number of tokens in a prompt and its completion."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Encode a chat with its generation prompt; message text never becomes a control token."""
        ...

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        """Encode a chat up to the next user message. Raises ValueError if the chat template rejects the turns."""
        ...

    def encode_template(self, template: str) -> list[int]:
        """Encode trusted template text, including its control tokens."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Return one completion per prompt, in order. Raises ValueError if the lengths differ."""
        ...


class RewardModel(Protocol):
    """Model that scores a response to an instruction; higher is better, in the model's own unit."""

    @property
    def model(self) -> str:
        """Hub name, or the folder's name."""
        ...

    @property
    def revision(self) -> str:
        """Commit, or the hash of the files."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        """Return (n,) float64 rewards of (instruction, response) pairs; NaN where the model returns NaN.

        `histories` holds the turns before each instruction; leave it empty if no pair has any.
        """
        ...


class Tracker(Protocol):
    """Experiment tracker and model registry; MLflow in production."""

    def log_training(
        self, record: AdapterRecord, folder: Path, curve: Sequence[Mapping[str, float]], tags: Mapping[str, str]
    ) -> tuple[str, str]:
        """Log a training, register its adapter, and return (run id, version).

        Idempotent by `record.fingerprint`: for a registered adapter, return the existing run and version.
        """
        ...

    def log_scores(self, metrics: Sequence[Metric], items: pl.DataFrame, versions: Mapping[str, str]) -> str:
        """Verify metrics against the items, log them and link them to `versions` (model -> version).

        Returns the run id. Raises ValueError with the first metric whose value, n or interval does not follow from the
        items.
        """
        ...

    def alias(self, name: str) -> str | None:
        """Return the version that the alias `name` ("champion", "challenger") points to, or None."""
        ...

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Point the alias `name` to `version`, and set tags on that version."""
        ...

    def version_tags(self, version: str) -> dict[str, str]:
        """Return the tags of a version. Raises KeyError if it does not exist."""
        ...
