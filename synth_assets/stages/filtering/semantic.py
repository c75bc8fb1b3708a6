"""Filter rows by meaning: paraphrases of benchmark items, and rows that say what an earlier row says.

Only with an embedding model; rows that the other rules reject are not embedded.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl

from synth_assets.schemas.settings import setting
from synth_assets.stages.filtering.decisions import SEMANTIC, SEMANTIC_ITEM, RowDecision, RowLog
from synth_assets.stages.filtering.features import Features
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.decontamination import indexed_texts
from synth_assets.text.embeddings import TextEmbedder, VectorFile, nearest, semantic_repeats
from synth_assets.text.words import Integers


@dataclass(frozen=True)
class SemanticSpec:
    """Thresholds of the semantic rules, chosen for all-MiniLM-L6-v2 on planted paraphrases.

    perf/semantic.py measures recall and precision; docs/experiments/2026-11-semantic-filter.md has the figures.
    """

    semantic_duplicate_similarity: float = setting(
        0.85, "Cosine of two instructions from which they are duplicates, 0..1; needs SYNTH_EMBEDDER."
    )
    semantic_item_similarity: float = setting(
        0.8, "Cosine with a benchmark item from which a row is contaminated, 0..1; needs SYNTH_EMBEDDER."
    )

    def __post_init__(self) -> None:
        """Raise ValueError with the name of a field that is out of range."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not 0 < value <= 1:
                raise ValueError(f"SemanticSpec.{each.name} must be above 0 and at most 1, got {value!r}")


@dataclass(frozen=True)
class Semantics:
    """An embedding model and the thresholds for its cosines."""

    embedder: TextEmbedder
    spec: SemanticSpec = field(default_factory=SemanticSpec)

    def facts(self) -> Mapping[str, Any]:
        """Return the thresholds and the model, to be recorded with those of the filter."""
        return {**asdict(self.spec), "embedder": self.embedder.name}


def recorded_settings(spec: FilterSpec, semantics: Semantics | None) -> Mapping[str, Any]:
    """Return the filter's thresholds by name, those of the semantic rules only where they were applied."""
    return {**asdict(spec), **(semantics.facts() if semantics else {})}


class ItemParaphrases:
    """Benchmark items by meaning."""

    def __init__(self, items: pl.DataFrame, semantics: Semantics) -> None:
        """Embed BENCHMARK_ITEMS: prompts, with their choices where a prompt is generic."""
        texts = indexed_texts(items)
        self._ids, self._semantics = texts["item_id"].to_list(), semantics
        self._vectors = semantics.embedder.embed(texts["text"].to_list())

    def reject(self, rows: Features, decision: RowDecision) -> None:
        """Reject the rows that passed so far and whose instruction is a paraphrase of an item."""
        passed, limit = decision.passed(), self._semantics.spec.semantic_item_similarity
        vectors = self._semantics.embedder.embed(rows.text("instruction").gather(passed).to_list())
        item, similarity = nearest(vectors, self._vectors)
        for place in np.flatnonzero(similarity >= limit).tolist():
            detail = f"{self._ids[item[place]]}: similarity {similarity[place]:.2f}"
            decision.reject(int(passed[place]), SEMANTIC_ITEM, detail)


class SemanticFilter:
    """Both semantic rules over the chunks of a table; use as a context manager. Without `semantics` it does nothing."""

    def __init__(self, semantics: Semantics | None, items: pl.DataFrame, folder: Path) -> None:
        """Embed the items; vectors of rows are kept in a temporary file in `folder`."""
        self._semantics, self._folder = semantics, folder
        self._items = ItemParaphrases(items, semantics) if semantics else None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Create the temporary file."""
        self._file = self._stack.enter_context(VectorFile(self._folder)) if self._semantics else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the temporary file."""
        self._stack.close()

    def add(self, rows: Features, decision: RowDecision) -> None:
        """Reject paraphrases of items and note the vectors of the next chunk's rows that passed."""
        if self._semantics is None or self._items is None or self._file is None:
            return
        self._items.reject(rows, decision)
        passed = decision.passed()
        if passed.size:
            self._file.append(self._semantics.embedder.embed(rows.tasks().gather(passed).to_list()))

    def reject_repeats(self, log: RowLog, added: Integers) -> None:
        """Reject each row that passed and says what a row kept before it says.

        Args:
            log: decisions on all rows, duplicates by their words rejected already.
            added: indices of the rows whose vectors were noted, in that order.
        """
        if self._semantics is None or self._file is None:
            return
        passed = log.passed()
        order = np.searchsorted(added, passed[log.sorted_positions(passed)])
        limit = self._semantics.spec.semantic_duplicate_similarity
        repeats = semantic_repeats(self._file.vectors(), order, limit)
        log.reject_repeated(added[repeats.text], added[repeats.original], SEMANTIC, repeats.similarity)
