"""Rows and items in the shapes of records.py, few words each, and the filter with a tokenizer of words."""

from collections.abc import Callable, Sequence

import polars as pl
import pytest

from synth_assets.llm.protocols import Message
from synth_assets.schemas.tables import BENCHMARK_ITEMS, INSTRUCTIONS
from synth_assets.stages.filtering.apply import FilterResult, apply_filters
from synth_assets.stages.filtering.features import Features, TokenLimits
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec

CONTEXT_TOKENS = 4096


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


def refuses_system_turns(turns: Sequence[Message], _answer: str) -> str:
    """Stand for a chat template that takes no system turn."""
    return "System role not supported" if any(turn["role"] == "system" for turn in turns) else ""


def _objection(instruction: str, response: str, context_tokens: int = CONTEXT_TOKENS, **columns: object) -> str:
    base = TokenLimits(_count_words, context_tokens, refuses_system_turns)
    rows = Features(_rows((instruction, response), **columns), FilterSpec(), base)
    return next((rule.reason for rule in RULES if rule.fails(rows, rule.measure(rows))[0]), "")


@pytest.fixture
def rows_of() -> Callable[..., pl.DataFrame]:
    """INSTRUCTIONS r000, r001, ... of (instruction, response) pairs; other columns null but for keywords."""
    return _rows


@pytest.fixture
def items_of() -> Callable[..., pl.DataFrame]:
    """BENCHMARK_ITEMS i0, i1, ... of these prompts."""
    return _items


@pytest.fixture
def objection() -> Callable[..., str]:
    """The first reason of the rules against one row, or empty; every word is a token."""
    return _objection


@pytest.fixture
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FilterResult]:
    """The verdicts on a table; every word is a token."""

    def judged(rows: pl.DataFrame, items: pl.DataFrame | None = None, spec: FilterSpec | None = None) -> FilterResult:
        items = _items("An item that no row repeats.") if items is None else items
        base = TokenLimits(_count_words, CONTEXT_TOKENS, refuses_system_turns)
        return apply_filters(rows.lazy(), items, spec or FilterSpec(), base, tmp_path_factory.mktemp("judged"))

    return judged
