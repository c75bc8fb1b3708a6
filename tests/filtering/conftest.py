"""Fixtures: short rows and items in the stored schemas, and the filter with a word tokenizer."""

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from synth_assets.llm.protocols import Message
from synth_assets.schemas.tables import BENCHMARK_ITEMS, INSTRUCTIONS
from synth_assets.stages.filtering.apply import FilterResult, apply_filters
from synth_assets.stages.filtering.features import Features
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.embeddings import Vectors, quantised
from synth_assets.text.token_limits import TokenLimits

CONTEXT_TOKENS = 4096


class WordEmbedder:
    """Embeds a text as the counts of its words, whatever their order; texts of more than 12 words are too long."""

    name, dimensions = "words@1", 256

    def embed(self, texts: Sequence[str]) -> Vectors:
        counts = np.zeros((len(texts), self.dimensions))
        for place, text in enumerate(texts):
            words = re.findall(r"\w+", text.lower())
            for word in words if len(words) <= 12 else ():
                counts[place, zlib.crc32(word.encode()) % self.dimensions] += 1
        return quantised(counts)


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _rows(*texts: tuple[str, str], **columns: object) -> pl.DataFrame:
    filled = {"source": "test", "batch": "b", "history": [], **columns}
    records = [
        {"row_id": f"r{place:03d}", "instruction": instruction, "response": response, **filled}
        for place, (instruction, response) in enumerate(texts)
    ]
    return pl.DataFrame(records, schema=INSTRUCTIONS)


def _items(*prompts: str) -> pl.DataFrame:
    records = [
        {"item_id": f"i{place}", "suite": "s", "split": "test", "kind": "generation", "prompt": prompt}
        for place, prompt in enumerate(prompts)
    ]
    return pl.DataFrame(records, schema=BENCHMARK_ITEMS)


def fates(result: FilterResult) -> dict[str, str]:
    """Return the fate of each row."""
    return dict(result.fates.select("row_id", "fate").iter_rows())


def refuses_system_turns(turns: Sequence[Message], _answer: str) -> str:
    """Return the refusal of a chat template without system turns."""
    return "System role not supported" if any(turn["role"] == "system" for turn in turns) else ""


def _first_reason(instruction: str, response: str, context_tokens: int = CONTEXT_TOKENS, **columns: object) -> str:
    base = TokenLimits(_count_words, context_tokens, refuses_system_turns)
    rows = Features(_rows((instruction, response), **columns), FilterSpec(), base)
    return next((rule.reason for rule in RULES if rule.fails(rows, rule.measure(rows))[0]), "")


@pytest.fixture
def rows_of() -> Callable[..., pl.DataFrame]:
    """Return a function that makes INSTRUCTIONS r000, r001, ... of (instruction, response) pairs."""
    return _rows


@pytest.fixture
def items_of() -> Callable[..., pl.DataFrame]:
    """Return a function that makes BENCHMARK_ITEMS i0, i1, ... of prompts."""
    return _items


@pytest.fixture
def first_reason() -> Callable[..., str]:
    """Return a function that gives the first reason of the rules against one row, or ""; every word is a token."""
    return _first_reason


@pytest.fixture
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FilterResult]:
    """Return a function that filters a table; every word is a token."""

    def filtered(
        rows: pl.DataFrame,
        items: pl.DataFrame | None = None,
        spec: FilterSpec | None = None,
        **options: Any,  # noqa: ANN401 - of apply_filters
    ) -> FilterResult:
        items = _items("An item that no row repeats.") if items is None else items
        base = TokenLimits(_count_words, CONTEXT_TOKENS, refuses_system_turns)
        folder = tmp_path_factory.mktemp("judged")
        return apply_filters(rows.lazy(), items, spec or FilterSpec(), base, folder, **options)

    return filtered
