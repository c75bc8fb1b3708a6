"""Limits that a model's tokenizer, context and chat template set to the texts of a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

CountTokens = Callable[[Sequence[str]], list[int]]


def accepts_all(turns: Sequence[Any], answer: str) -> str:
    """Return the refusal of a chat template that accepts every conversation."""
    return ""


@dataclass(frozen=True)
class TokenLimits:
    """Limits of the model to be trained.

    Attributes:
        count_tokens: returns the number of tokens of each plain text.
        context_tokens: length of its context.
        refusal: returns why its chat template refuses turns and their answer; empty if it does not.
    """

    count_tokens: CountTokens
    context_tokens: int
    refusal: Callable[[Sequence[Any], str], str] = accepts_all
