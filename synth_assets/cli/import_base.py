"""How many rows of an import the base model in use cannot take, counted as the filter will count them."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import polars as pl

from resources.inference import Inference
from synth_assets.cli.session import Session
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import INSTRUCTIONS
from synth_assets.stages.filtering.features import CountTokens, Features, TokenLimits
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.generation.import_report import TooLong

REASON = "too_long_for_base"
MEASURED_CHARACTERS = 20_000_000  # of each file; the share of the rest is about the same
SLICE_ROWS = 1_000
SIDES = ("response", "chosen", "rejected")


def counter_of(session: Session) -> Callable[[], Callable[[pl.DataFrame], TooLong | None]]:
    """Return what makes the counter of a file; the base is resolved once, when the first rows come."""
    base = _BaseInUse(session)
    return lambda: _Counter(base).add


class _BaseInUse:
    """The base of a deployment, resolved when it is first asked for; its tokenizer is loaded for a long text only."""

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
        """What the filter asks of it."""
        return TokenLimits(self.count, self.model.context_tokens)

    @cached_property
    def counter(self) -> CountTokens:
        return self.inference.count_tokens(self.model)

    def count(self, texts: Sequence[str]) -> list[int]:
        return self.counter(texts)


class _Counter:
    """Counts the rows of one file until MEASURED_CHARACTERS were looked at."""

    def __init__(self, base: _BaseInUse) -> None:
        self._base = base
        self._rule = next(rule for rule in RULES if rule.reason == REASON)
        self._characters = 0
        self._found: TooLong | None = None
        self._failed = False

    def add(self, rows: pl.DataFrame) -> TooLong | None:
        """Count further rows, INSTRUCTIONS or PAIRS, and return the count so far; None where the base is not here."""
        if self._failed:
            return None
        try:
            for part in rows.iter_slices(SLICE_ROWS):
                if self._characters < MEASURED_CHARACTERS:
                    self._add(part)
        except (ValueError, OSError, RuntimeError) as error:
            logging.getLogger(__name__).warning("Rows too long for the base are not counted: %s", error)
            self._failed, self._found = True, None
        return self._found

    def _add(self, rows: pl.DataFrame) -> None:
        base, spec = self._base.base, self._base.spec
        found = self._found = self._found or TooLong(self._base.model.name, base.context_tokens)
        too_long = np.zeros(rows.height, bool)
        for side in (side for side in SIDES if side in rows.columns):
            features = Features(_with_response(rows, side), spec, base)
            too_long |= self._rule.fails(features, self._rule.measure(features))
            lengths = features.text("instruction").str.len_chars() + features.text("response").str.len_chars()
            self._characters += int(lengths.sum())
        found.rows += int(too_long.sum())
        found.measured += rows.height


def _with_response(rows: pl.DataFrame, side: str) -> pl.DataFrame:
    """Return rows as INSTRUCTIONS that one of their answers responds to."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in INSTRUCTIONS.items() if name not in rows.columns]
    if side != "response":
        missing = [each for each in missing if each.meta.output_name() != "response"]
    return rows.with_columns(pl.col(side).alias("response"), *missing).select(INSTRUCTIONS.names())
