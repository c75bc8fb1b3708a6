"""A chunk of rows with what rules read of it: both texts, their words, and their length in tokens."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synth_assets.llm.protocols import Refusal, refuses_nothing
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.lexicon import contained
from synth_assets.text.words import Integers, TokenHashes, hash_words

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
CountTokens = Callable[[Sequence[str]], list[int]]
Side = Literal["instruction", "response"]
T = TypeVar("T")
SIDES: tuple[Side, Side] = ("instruction", "response")
ESCAPE = re.compile(r"\\.")
ASCII_CLASSES = {r"\b": r"(?-u:\b)", r"\w": "[0-9A-Za-z_]"}


@dataclass(frozen=True)
class TokenLimits:
    """What the filter asks of the model to be trained.

    Attributes:
        count_tokens: of plain texts.
        context_tokens: that it takes at once.
        refusal: why its chat template refuses turns with an answer after them; empty where it does not.
    """

    count_tokens: CountTokens
    context_tokens: int
    refusal: Refusal = refuses_nothing


class Features:
    """Rows of INSTRUCTIONS, and measures of them that several rules share, computed once and only if asked for.

    Texts are read up to the character limit of the spec and one more: enough to see that a text is longer, and no
    single row can blow up a chunk.
    """

    def __init__(self, rows: pl.DataFrame, spec: FilterSpec, base: TokenLimits) -> None:
        """Take a chunk of rows; null texts count as empty."""
        self.rows, self.spec, self._count_tokens = rows, spec, base.count_tokens
        self.context_tokens, self._refusal = base.context_tokens, base.refusal
        limit = spec.max_characters + 1
        self._texts = {side: rows[side].fill_null("").str.slice(0, limit) for side in SIDES}
        self._words: dict[Side, TokenHashes] = {}
        self._history: pl.Series | None = None
        self._refusals: list[str] | None = None
        self._shared: dict[tuple[object, Side], object] = {}

    def __len__(self) -> int:
        """Rows of the chunk."""
        return self.rows.height

    def text(self, side: Side) -> pl.Series:
        """The instructions or the responses."""
        return self._texts[side]

    def words(self, side: Side) -> TokenHashes:
        """The words of one side."""
        if side not in self._words:
            self._words[side] = hash_words(self._texts[side].to_list())
        return self._words[side]

    def shared(self, measure: Callable[["Features", Side], T], side: Side) -> T:
        """A measure of one side that several rules read, computed once."""
        key = (measure, side)
        if key not in self._shared:
            self._shared[key] = measure(self, side)
        return cast(T, self._shared[key])

    def word_counts(self, side: Side) -> Integers:
        """Words of each text of one side."""
        return self.words(side).counts()

    def lexicon_counts(self, side: Side, lexicon: NDArray[np.uint64]) -> Integers:
        """How many words of each text are in a lexicon of hashes."""
        words = self.words(side)
        return np.bincount(words.text[contained(words.hashes, lexicon)], minlength=words.texts)

    def matches(self, side: Side, pattern: str, among: Flags | None = None) -> Floats:
        """How often a regular expression matches each text of one side; 0 for texts that are not `among`."""
        places = np.arange(len(self)) if among is None else np.flatnonzero(among)
        counts = np.zeros(len(self))
        if places.size:
            texts = self._texts[side] if among is None else self._texts[side].gather(places)
            counts[places] = texts.str.count_matches(_ascii(pattern)).to_numpy()
        return counts

    def contains(self, side: Side, pattern: str, among: Flags | None = None) -> Flags:
        """Where a regular expression matches at all; texts that are not `among` are not searched.

        Polars keeps some thirty compiled patterns; a rule that searches few rows spares the others theirs.
        """
        if among is None:
            return found(self._texts[side], pattern)
        places = np.flatnonzero(among)
        kept = np.zeros(len(self), bool)
        kept[places] = found(self._texts[side].gather(places), pattern)
        return kept

    def holds(self, side: Side, literal: str) -> Flags:
        """Where a text holds these characters."""
        return self._texts[side].str.contains(literal, literal=True).to_numpy()

    def lacking(self, side: Side, pattern: str, among: Flags) -> Flags:
        """Those of the rows `among` whose text has no match; the others' texts are not searched."""
        return among & ~self.contains(side, pattern, among)

    def tokens_above(self, side: Side, limit: int) -> Floats:
        """Tokens of each text that may have more than `limit`; NaN where it cannot.

        A token stands for at least one byte, so a text of fewer bytes needs no tokenizer.
        """
        return self._counted([self._texts[side]], limit)

    def tasks(self) -> pl.Series:
        """What the model is asked, earlier turns included: the texts by which duplicates are told."""
        history = self.history()
        return pl.select(
            pl.when(history == "").then(self.text("instruction")).otherwise(history + "\n" + self.text("instruction"))
        ).to_series()

    def task_words(self, places: Integers) -> TokenHashes:
        """The words of some of the tasks, given by their places in order."""
        if self.history().str.len_bytes().sum():
            return hash_words(self.tasks().gather(places).to_list())
        return self.words("instruction").chosen(places)

    def conversation_tokens(self, limit: int) -> Floats:
        """Tokens of history, instruction and response together, where they may exceed `limit`; else NaN."""
        texts = [self.history(), *self._texts.values()]
        return self._counted(texts, limit)

    def history(self) -> pl.Series:
        """What was said in earlier turns, a line each; often empty."""
        if self._history is None:
            said = pl.element().struct.field("content")
            joined = pl.col("history").list.eval(said).list.join("\n").fill_null("")
            self._history = self.rows.select(joined).to_series()
        return self._history

    def refusals(self) -> list[str]:
        """Why the base's chat template refuses each row; empty where it takes it."""
        if self._refusals is None:
            texts = (self.rows["history"], *self._texts.values())
            rows = zip(*(text.to_list() for text in texts), strict=True)
            self._refusals = [
                self._refusal([*(history or []), {"role": "user", "content": instruction}], response)
                for history, instruction, response in rows
            ]
        return self._refusals

    def _counted(self, texts: Sequence[pl.Series], limit: int) -> Floats:
        counts = np.full(len(self), np.nan)
        breaks = len(texts) - 1
        places = np.flatnonzero(np.sum([text.str.len_bytes().to_numpy() for text in texts], axis=0) + breaks > limit)
        if places.size:
            parts = zip(*(text.gather(places).to_list() for text in texts), strict=True)
            counts[places] = self._count_tokens(["\n".join(part) for part in parts])
        return counts


def found(texts: pl.Series, pattern: str) -> Flags:
    """Where a regular expression matches."""
    return texts.str.contains(_ascii(pattern)).to_numpy() if len(texts) else np.zeros(0, bool)


@cache
def _ascii(pattern: str) -> str:
    """The pattern with an apostrophe of either form, and words of ASCII, which are eight times as fast to look for."""
    either = pattern.replace("'", r"['\x{2019}]")
    return ESCAPE.sub(lambda found: ASCII_CLASSES.get(found[0], found[0]), either)
