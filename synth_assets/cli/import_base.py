"""Count the imported rows that are too long for the base model, by the rule of the filter."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import polars as pl

from resources.inference import Inference
from synth_assets.cli.session import Session
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.filtering.features import Features
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.generation.import_report import TooLong
from synth_assets.text.token_limits import CountTokens, TokenLimits

REASON = "too_long_for_base"
MAX_COUNTED_CHARACTERS = 20_000_000  # per file; the sample is large enough to estimate the share
SLICE_ROWS = 1_000
SIDES = ("response", "chosen", "rejected")


def counter_of(session: Session) -> Callable[[], Callable[[pl.DataFrame], TooLong | None]]:
    """Return a factory of per-file counters. The base model is resolved once, when the first rows are counted."""
    base = _BaseInUse(session)
    return lambda: _Counter(base).add


class _BaseInUse:
    """The base model of a deployment, resolved on first use. Its tokenizer is loaded only for long texts."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def inference(self) -> Inference:
        return Inference(hardware=self._session.hardware)

    @cached_property
    def model(self) -> ModelRecord:
        return self.inference.resolve("base")

    @cached_property
    def spec(self) -> FilterSpec:
        return self._session.hardware.spec(FilterSpec())

    @cached_property
    def base(self) -> TokenLimits:
        """The token limits that the filter applies."""
        return TokenLimits(self.count, self.model.context_tokens)

    @cached_property
    def counter(self) -> CountTokens:
        return self.inference.count_tokens(self.model)

    def count(self, texts: Sequence[str]) -> list[int]:
        return self.counter(texts)


class _Counter:
    """Counts the rows of one file until MAX_COUNTED_CHARACTERS have been counted."""

    def __init__(self, base: _BaseInUse) -> None:
        self._base = base
        self._rule = next(rule for rule in RULES if rule.reason == REASON)
        self._characters = 0
        self._total: TooLong | None = None
        self._failed = False

    def add(self, rows: pl.DataFrame) -> TooLong | None:
        """Count more rows (INSTRUCTIONS or PAIRS) and return the total so far; None if the base is not available."""
        if self._failed:
            return None
        try:
            for part in rows.iter_slices(SLICE_ROWS):
                if self._characters < MAX_COUNTED_CHARACTERS:
                    self._add(part)
        except (ValueError, OSError, RuntimeError) as error:
            logging.getLogger(__name__).warning("Cannot count the rows that are too long for the base model: %s", error)
            self._failed, self._total = True, None
        return self._total

    def _add(self, rows: pl.DataFrame) -> None:
        base, spec = self._base.base, self._base.spec
        total = self._total = self._total or TooLong(self._base.model.name, base.context_tokens)
        too_long = np.zeros(rows.height, bool)
        for side in (side for side in SIDES if side in rows.columns):
            features = Features(_with_response(rows, side), spec, base)
            too_long |= self._rule.fails(features, self._rule.measure(features))
            lengths = features.text("instruction").str.len_chars() + features.text("response").str.len_chars()
            self._characters += int(lengths.sum())
        total.rows += int(too_long.sum())
        total.measured += rows.height


def _with_response(rows: pl.DataFrame, side: str) -> pl.DataFrame:
    """Return the rows as INSTRUCTIONS with the answer in column `side` as the response."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in INSTRUCTIONS.items() if name not in rows.columns]
    if side != "response":
        missing = [column for column in missing if column.meta.output_name() != "response"]
    return rows.with_columns(pl.col(side).alias("response"), *missing).select(INSTRUCTIONS.names())
