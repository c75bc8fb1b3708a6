"""What is said about rows while they are read in chunks, and the tables of those that stay and of those that do not.

In memory stay what tells rows apart, each one's reason and what it repeats: some hundred bytes a row. Everything else
goes to files, and the tables are written in a second pass over the rows.
"""

from collections.abc import Iterator, Mapping, Sequence
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
NO_RECALLS: Mapping[str, str] = MappingProxyType({})
REPEATS = pl.Schema({"repeats": pl.String, "similarity": pl.Float64})


def chunks(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The rows in order, at most CHUNK_ROWS at a time, fewer where they are long."""
    yield from row_batches(rows, CHUNK_ROWS)


class Parts:
    """A table in files of a folder that grows at its end."""

    def __init__(self, folder: Path, name: str, schema: pl.Schema) -> None:
        """Keep the files as `<name>-<number>.parquet`."""
        self._folder, self._name, self._schema = folder, name, schema
        self._waiting: list[pl.DataFrame] = []
        self._files: list[Path] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Append rows, of which some wait in memory until a file is full."""
        self._waiting.append(rows.select(self._schema.names()))
        if sum(frame.height for frame in self._waiting) >= FILE_ROWS:
            self._write()

    def table(self) -> pl.LazyFrame:
        """All rows, read from the files when they are asked for."""
        self._write()
        return pl.scan_parquet(self._files, glob=False) if self._files else pl.LazyFrame(schema=self._schema)

    def _write(self) -> None:
        if not any(frame.height for frame in self._waiting):
            return
        path = self._folder / f"{self._name}-{len(self._files):06}.parquet"
        pl.concat(self._waiting).cast(dict(self._schema)).write_parquet(path, compression="uncompressed")  # pyright: ignore[reportArgumentType]
        self._files.append(path)
        self._waiting.clear()


class RowDecision:
    """What is said about the rows of one chunk; the first objection stands."""

    def __init__(self, rows: pl.DataFrame) -> None:
        """Begin with no objection against any row."""
        self.reason = np.full(rows.height, "", object)
        self.detail = np.full(rows.height, "", object)

    def passed(self) -> Integers:
        """The places of the rows without an objection."""
        return np.flatnonzero(self.reason == "")

    def reject(self, place: int, reason: str, detail: str) -> None:
        """Object to a row, unless there was an objection before."""
        if not self.reason[place]:
            self.reason[place], self.detail[place] = reason, detail


class RowLog:
    """The verdicts on all rows so far."""

    def __init__(
        self, keys: tuple[str, str], reasons: Sequence[str], folder: Path, recalled: Mapping[str, str] = NO_RECALLS
    ) -> None:
        """Expect verdicts on chunks of rows.

        Args:
            keys: the columns that order the rows; of rows that repeat each other the lowest is kept. The second is
                the row's id.
            reasons: all there may be.
            folder: for files; it must be there as long as the tables are used.
            recalled: id -> why a person took the row back; of rows that repeat each other such a one is the lowest.
        """
        self._keys, self._folder, self._recalled = keys, folder, recalled
        self._reasons = pl.Enum(["", *dict.fromkeys(reasons)])
        self._tables: list[pl.DataFrame] = []
        self._tasks = [np.zeros(0, np.uint64)]
        self._details = Parts(folder, "details", pl.Schema({"detail": pl.String}))
        self.table = pl.DataFrame()

    def add(self, rows: pl.DataFrame, verdict: RowDecision, tasks: Sequence[str], facts: pl.DataFrame) -> None:
        """Take the verdicts on the next rows, the tasks of those that passed, and columns to keep beside them."""
        reason = pl.Series("reason", verdict.reason.tolist(), self._reasons)
        self._tables.append(rows.select(self._keys).with_columns(reason, *facts.get_columns()))
        self._tasks.append(hash_tasks(tasks))
        self._details.add(pl.DataFrame({"detail": verdict.detail.tolist()}, schema={"detail": pl.String}))

    def reject_repeats(self, near: NearDuplicates) -> Integers:
        """Close the ledger and reject each row that repeats an earlier one, exactly or nearly.

        Args:
            near: the tasks of the rows that passed, in the order in which they were added.

        Returns:
            The places of the rows that had passed so far.
        """
        self.table = pl.concat([*self._tables, self._no_rows()], how="diagonal")
        tasks = np.concatenate(self._tasks)
        self._tables, self._tasks = [], []
        passed = self.passed()
        repeats = repeated(self.in_order(passed), tasks, near)
        reasons = np.where(repeats.exact, EXACT, NEAR)
        originals = self.table[self._keys[1]].gather(passed[repeats.original])
        self.reject(passed[repeats.row], reasons, originals, repeats.similarity)
        return passed

    def passed(self) -> Integers:
        """The places of the rows without an objection."""
        return np.flatnonzero((self.table["reason"] == "").to_numpy())

    def in_order(self, places: Integers) -> Integers:
        """Positions in `places`, that of the lowest row first."""
        stays = ~pl.col(self._keys[1]).is_in([*self._recalled])
        rows = self.table.select(*self._keys, stays=stays)[places].with_row_index("position")
        return rows.sort("stays", *self._keys, "position")["position"].to_numpy().astype(np.int64)

    def reject(
        self, places: Integers, reasons: NDArray[np.str_], repeats: pl.Series, similarity: NDArray[np.float64]
    ) -> None:
        """Object to rows because of rows that they resemble."""
        overlay = pl.DataFrame(
            {
                "place": places,
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

    def take_back(self) -> None:
        """Object to the recalled rows, whatever else speaks against them."""
        out = pl.col(self._keys[1]).is_in([*self._recalled])
        self.table = self.table.with_columns(
            reason=pl.when(out).then(pl.lit(RECALLED, self._reasons)).otherwise("reason"),
            repeats=pl.when(~out).then("repeats"),
        )

    def reasons(self) -> dict[str, int]:
        """Rows by reason, most frequent first; kept rows left out."""
        rejected = self.table.filter(pl.col("reason") != "").with_columns(pl.col("reason").cast(pl.String))
        return dict(rejected.group_by("reason").len().sort(["len", "reason"], descending=[True, False]).iter_rows())

    def fates(self) -> pl.DataFrame:
        """row_id and fate ("kept" or the reason) of every row."""
        reason = pl.col("reason").cast(pl.String)
        fate = pl.when(reason == "").then(pl.lit("kept")).otherwise(reason)
        return self.table.select(pl.col(self._keys[1]).alias("row_id"), fate.alias("fate"))

    def write(self, rows: pl.LazyFrame, kept: pl.Schema, rejected: pl.Schema) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """The rows that stay and those that do not, in order, beside the columns kept here, `reason` and `detail`."""
        stay, go = Parts(self._folder, "kept", kept), Parts(self._folder, "rejected", rejected)
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
        at = 0
        for chunk, said in _side_by_side(chunks(rows), chunks(self._details.table())):
            own = facts.slice(at, chunk.height)
            told = chunk.drop(set(own.columns) & set(chunk.columns)).hstack(own).hstack(said)
            told = told.with_columns(detail=detail)
            stay.add(told.filter(pl.col("reason") == ""))
            go.add(told.filter(pl.col("reason") != ""))
            at += chunk.height
        return stay.table(), go.table()

    def _no_rows(self) -> pl.DataFrame:
        texts = dict.fromkeys(self._keys, pl.String)
        return pl.DataFrame(schema={**texts, "reason": self._reasons, **REPEATS})


def _side_by_side(
    left: Iterator[pl.DataFrame], right: Iterator[pl.DataFrame]
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Two tables of equally many rows, the second cut as the first is."""
    rest: list[pl.DataFrame] = []
    for frame in left:
        while sum(each.height for each in rest) < frame.height:
            rest.append(next(right))
        both = pl.concat(rest)
        yield frame, both.head(frame.height)
        rest = [both.slice(frame.height)]
