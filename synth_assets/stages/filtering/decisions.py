"""Record the filter's decision for each row while chunks stream through, and write the kept and rejected tables.

Only keys, reasons and duplicate links stay in memory (about 100 bytes a row). Everything else is written to files, and
the tables are written in a second pass over the rows.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synth_assets.storage.retractions import RECALLED
from synth_assets.storage.row_batches import row_batches
from synth_assets.text.near_duplicates import NearDuplicates, hash_tasks, repeated
from synth_assets.text.words import Integers

CHUNK_ROWS = 2048
FILE_ROWS = 4 * CHUNK_ROWS
CONTAMINATED, EXACT, NEAR = "benchmark_item", "exact_duplicate", "near_duplicate"
SEMANTIC_ITEM, SEMANTIC = "semantic_benchmark_item", "semantic_duplicate"
NO_RECALLS: Mapping[str, str] = MappingProxyType({})
REPEATS = pl.Schema({"repeats": pl.String, "similarity": pl.Float64})


def chunks(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows in order, at most CHUNK_ROWS at a time, fewer if they are long."""
    yield from row_batches(rows, CHUNK_ROWS)


class TableFiles:
    """An append-only table, stored in Parquet files of a folder."""

    def __init__(self, folder: Path, name: str, schema: pl.Schema) -> None:
        """Name the files `<name>-<number>.parquet`."""
        self._folder, self._name, self._schema = folder, name, schema
        self._waiting: list[pl.DataFrame] = []
        self._files: list[Path] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Append rows; they are buffered in memory until a file is full."""
        self._waiting.append(rows.select(self._schema.names()))
        if sum(frame.height for frame in self._waiting) >= FILE_ROWS:
            self._write()

    def table(self) -> pl.LazyFrame:
        """Return all rows, read lazily from the files."""
        self._write()
        return pl.scan_parquet(self._files, glob=False) if self._files else pl.LazyFrame(schema=self._schema)

    def _write(self) -> None:
        if not any(frame.height for frame in self._waiting):
            return
        path = self._folder / f"{self._name}-{len(self._files):06}.parquet"
        pl.concat(self._waiting).cast(dict(self._schema)).write_parquet(path, compression="uncompressed")  # pyright: ignore[reportArgumentType]
        self._files.append(path)
        self._waiting.clear()


@dataclass(frozen=True)
class FilterOutcome:
    """Result of a filter.

    Attributes:
        kept: rows that passed, in the order of the input.
        rejected: the other rows with `reason` and `detail`, in the order of the input.
        reasons: number of rows by reason, most frequent first.
        fates: row_id and fate ("kept" or the reason) of every row.
    """

    kept: pl.LazyFrame
    rejected: pl.LazyFrame
    reasons: dict[str, int]
    fates: pl.DataFrame

    def summary(self) -> str:
        """Return one line for the log: "Rejected 412 of 1,500 rows: too_short 201, near_duplicate 97"."""
        counts = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.items())
        total = f"Rejected {sum(self.reasons.values()):,} of {self.fates.height:,} rows"
        return f"{total}: {counts}" if counts else total


class RowDecision:
    """Decisions on the rows of one chunk; the first reason to reject a row stands."""

    def __init__(self, rows: pl.DataFrame) -> None:
        """Start with every row passing."""
        self.reason = np.full(rows.height, "", object)
        self.detail = np.full(rows.height, "", object)

    def passed(self) -> Integers:
        """Return the indices of the rows that are not rejected."""
        return np.flatnonzero(self.reason == "")

    def reject(self, index: int, reason: str, detail: str) -> None:
        """Reject a row, unless it is rejected already."""
        if not self.reason[index]:
            self.reason[index], self.detail[index] = reason, detail


class RowLog:
    """Decisions on all rows so far."""

    def __init__(
        self,
        keys: tuple[str, str],
        reasons: Sequence[str],
        folder: Path,
        recalled: Mapping[str, str] = NO_RECALLS,
        kept: Collection[str] = frozenset(),
    ) -> None:
        """Start without rows.

        Args:
            keys: columns that order the rows; of duplicates the lowest row is kept. The second is the row's id.
            reasons: all possible reasons.
            folder: folder for files; it must exist as long as the tables are used.
            recalled: reason of the recall by row id; recalled rows precede their duplicates.
            kept: ids of the rows that a reviewer kept; they precede all others that are not recalled.
        """
        self._keys, self._folder, self._recalled, self._kept = keys, folder, recalled, kept
        self._reasons = pl.Enum(["", *dict.fromkeys(reasons)])
        self._tables: list[pl.DataFrame] = []
        self._tasks = [np.zeros(0, np.uint64)]
        self._details = TableFiles(folder, "details", pl.Schema({"detail": pl.String}))
        self.table = pl.DataFrame()

    def add(self, rows: pl.DataFrame, decision: RowDecision, tasks: Sequence[str], facts: pl.DataFrame) -> None:
        """Add the decisions on the next rows, the tasks of those that passed, and further columns to store."""
        reason = pl.Series("reason", decision.reason.tolist(), self._reasons)
        self._tables.append(rows.select(self._keys).with_columns(reason, *facts.get_columns()))
        self._tasks.append(hash_tasks(tasks))
        self._details.add(pl.DataFrame({"detail": decision.detail.tolist()}, schema={"detail": pl.String}))

    def reject_repeats(self, near: NearDuplicates) -> Integers:
        """End the first pass and reject each row that repeats an earlier one, exactly or nearly.

        Args:
            near: tasks of the rows that passed, in the order in which they were added.

        Returns:
            The indices of the rows that passed before duplicates were rejected.
        """
        self.table = pl.concat([*self._tables, self._no_rows()], how="diagonal")
        tasks = np.concatenate(self._tasks)
        self._tables, self._tasks = [], []
        passed = self.passed()
        repeats = repeated(self.sorted_positions(passed), tasks, near)
        reasons = np.where(repeats.exact, EXACT, NEAR)
        self.reject_repeated(passed[repeats.row], passed[repeats.original], reasons, repeats.similarity)
        return passed

    def reject_repeated(
        self,
        indices: Integers,
        originals: Integers,
        reasons: NDArray[np.str_] | str,
        similarity: NDArray[np.float64],
    ) -> None:
        """Reject rows because of the rows with the indices `originals`, which they repeat."""
        ids = self.table[self._keys[1]].gather(originals)
        self.reject(indices, np.broadcast_to(reasons, indices.shape), ids, similarity)

    def passed(self) -> Integers:
        """Return the indices of the rows that are not rejected."""
        return np.flatnonzero((self.table["reason"] == "").to_numpy())

    def sorted_positions(self, indices: Integers) -> Integers:
        """Return positions in `indices`, sorted by the rows' keys."""
        not_recalled = ~pl.col(self._keys[1]).is_in([*self._recalled])
        not_kept = ~pl.col(self._keys[1]).is_in([*self._kept])
        rows = self.table.select(*self._keys, not_recalled=not_recalled, not_kept=not_kept)[indices]
        rows = rows.with_row_index("position")
        return rows.sort("not_recalled", "not_kept", *self._keys, "position")["position"].to_numpy().astype(np.int64)

    def reject(
        self, indices: Integers, reasons: NDArray[np.str_], repeats: pl.Series, similarity: NDArray[np.float64]
    ) -> None:
        """Reject rows because of the rows that they repeat."""
        overlay = pl.DataFrame(
            {
                "place": indices,
                "why": pl.Series(reasons.tolist(), dtype=self._reasons),
                "of": repeats.cast(pl.String),
                "share": similarity,
            }
        )
        joined = self.table.with_row_index("place").with_columns(pl.col("place").cast(pl.Int64))
        joined = joined.join(overlay, on="place", how="left", maintain_order="left")
        self.table = joined.with_columns(
            reason=pl.coalesce("why", "reason"),
            repeats=pl.coalesce("of", "repeats"),
            similarity=pl.coalesce("share", "similarity"),
        ).drop("place", "why", "of", "share")

    def apply_retractions(self) -> None:
        """Reject the recalled rows with the reason RECALLED, whatever other reason they have."""
        recalled = pl.col(self._keys[1]).is_in([*self._recalled])
        self.table = self.table.with_columns(
            reason=pl.when(recalled).then(pl.lit(RECALLED, self._reasons)).otherwise("reason"),
            repeats=pl.when(~recalled).then("repeats"),
        )

    def reasons(self) -> dict[str, int]:
        """Return the number of rejected rows by reason, most frequent first."""
        rejected = self.table.filter(pl.col("reason") != "").with_columns(pl.col("reason").cast(pl.String))
        return dict(rejected.group_by("reason").len().sort(["len", "reason"], descending=[True, False]).iter_rows())

    def fates(self) -> pl.DataFrame:
        """Return row_id and fate ("kept" or the reason) of every row."""
        reason = pl.col("reason").cast(pl.String)
        fate = pl.when(reason == "").then(pl.lit("kept")).otherwise(reason)
        return self.table.select(pl.col(self._keys[1]).alias("row_id"), fate.alias("fate"))

    def write(self, rows: pl.LazyFrame, kept: pl.Schema, rejected: pl.Schema) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """Return the kept and the rejected rows, in order, with the stored columns, `reason` and `detail`."""
        kept_files, rejected_files = (
            TableFiles(self._folder, "kept", kept),
            TableFiles(self._folder, "rejected", rejected),
        )
        facts = self.table.drop(*self._keys).with_columns(pl.col("reason").cast(pl.String))
        repeats = pl.format("repeats {}, similarity {}", "repeats", pl.col("similarity").round(2))
        recall = pl.col(self._keys[1]).replace(self._recalled)
        detail = (
            pl.when(pl.col("reason") == RECALLED)
            .then(recall)
            .when(pl.col("repeats").is_null())
            .then("detail")
            .otherwise(repeats)
        )
        start = 0
        for chunk, details in _aligned(chunks(rows), chunks(self._details.table())):
            facts_of_chunk = facts.slice(start, chunk.height)
            decided = (
                chunk.drop(set(facts_of_chunk.columns) & set(chunk.columns)).hstack(facts_of_chunk).hstack(details)
            )
            decided = decided.with_columns(detail=detail)
            kept_files.add(decided.filter(pl.col("reason") == ""))
            rejected_files.add(decided.filter(pl.col("reason") != ""))
            start += chunk.height
        return kept_files.table(), rejected_files.table()

    def _no_rows(self) -> pl.DataFrame:
        texts = dict.fromkeys(self._keys, pl.String)
        return pl.DataFrame(schema={**texts, "reason": self._reasons, **REPEATS})


def _aligned(
    left: Iterator[pl.DataFrame], right: Iterator[pl.DataFrame]
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield chunks of two tables of equal length, the second cut like the first."""
    rest: list[pl.DataFrame] = []
    for frame in left:
        while sum(each.height for each in rest) < frame.height:
            rest.append(next(right))
        both = pl.concat(rest)
        yield frame, both.head(frame.height)
        rest = [both.slice(frame.height)]
