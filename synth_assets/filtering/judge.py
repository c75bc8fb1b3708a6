"""Every row judged once: rules, benchmark items, exact and near-duplicates; the first objection is the reason.

Benchmark items come before duplicates, so that a row is never dropped for the sake of one that is itself dropped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synth_assets.filtering.decontamination import Decontaminator
from synth_assets.filtering.duplicates import NearDuplicates, hash_tasks, repeated
from synth_assets.filtering.features import Base, CountTokens, Features
from synth_assets.filtering.rules import RULES
from synth_assets.filtering.spec import FilterSpec
from synth_assets.records import JUDGED, REJECTED
from synth_assets.text import hash_words

CHUNK_ROWS = 2048
DETAILS_AT_ONCE = 32  # chunks whose details make one file
SMALLEST_LIMIT = 1e-9  # a limit of 0 leaves no distance to measure
CONTAMINATED, EXACT, NEAR = "benchmark_item", "exact_duplicate", "near_duplicate"


@dataclass(frozen=True)
class Verdicts:
    """What became of the rows.

    Attributes:
        kept: JUDGED, in the order of the input. `score` is the distance to rejection, 0..1: the smallest share of
            its limit that the row leaves free among repetition, echo and foreign language; 1 where none was measured,
            0 at the edge.
        rejected: REJECTED, in the order of the input.
        reasons: rows by reason, most frequent first.
        fates: row_id and fate ("kept" or the reason) of every row.
    """

    kept: pl.LazyFrame
    rejected: pl.LazyFrame
    reasons: dict[str, int]
    fates: pl.DataFrame


def judge(
    rows: pl.LazyFrame,
    items: pl.DataFrame,
    spec: FilterSpec,
    count_tokens: CountTokens,
    context_tokens: int,
    scratch: Path | None = None,
) -> Verdicts:
    """Keep one good row for each distinct task.

    Of duplicates the row of the lowest (batch, row_id) is kept, so that the order of the rows changes nothing and a new
    batch does not displace rows of an older one. The table is read in chunks, and again whenever a result is collected;
    in memory stay some hundred bytes a row.

    Args:
        rows: INSTRUCTIONS, of any length.
        items: BENCHMARK_ITEMS of all suites.
        spec: the thresholds.
        count_tokens: the base model's token count of each text, without control tokens.
        context_tokens: how many tokens the base takes at once.
        scratch: folder for temporary files, which the results read as long as they are used; None keeps the details
            of rejection in memory, and the rest in the system's temporary folder.

    Raises:
        ValueError: no benchmark items, no rows, or no row is left; says how many each reason rejected.
    """
    decontaminator, base = Decontaminator(items, spec.benchmark_cover), Base(count_tokens, context_tokens)
    ledger = _Ledger(scratch)
    with NearDuplicates(spec.near_duplicate_similarity, scratch) as near:
        for chunk in _chunks(rows):
            features = Features(chunk, spec, base)
            verdict = _Verdict(chunk)
            verdict.apply_rules(features)
            verdict.apply_items(features, decontaminator)
            tasks = features.tasks().gather(verdict.passed()).to_list()
            near.add(tasks)
            ledger.add(verdict, tasks)
        verdicts = ledger.close(near)
    reasons = _counts(verdicts["reason"])
    if not (verdicts["reason"] == "").any():
        table = "\n".join(f"  {reason}: {count}" for reason, count in reasons.items()) or "  there were none to judge"
        raise ValueError(f"no instruction row is left of {verdicts.height}; rejected by reason:\n{table}")
    told = pl.concat([rows, ledger.details(), verdicts.select(_OVERLAY).lazy()], how="horizontal")
    repeats = pl.format("repeats {}, similarity {}", "repeats", pl.col("similarity").round(2))
    told = told.with_columns(
        pl.col("reason").cast(pl.String), detail=pl.when(pl.col("repeats").is_null()).then("detail").otherwise(repeats)
    )
    kept, rejected = pl.col("reason") == "", pl.col("reason") != ""
    return Verdicts(
        kept=told.filter(kept).select(JUDGED.names()),
        rejected=told.filter(rejected).select(REJECTED.names()),
        reasons=reasons,
        fates=verdicts.select("row_id", pl.col("reason").cast(pl.String).replace("", "kept").alias("fate")),
    )


def _chunks(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    for batch in rows.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True):
        yield from batch.iter_slices(CHUNK_ROWS)


class _Verdict:
    """What is said about the rows of one chunk; the first objection stands."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.ids = rows.select("batch", "row_id")
        self.reason = np.full(rows.height, "", object)
        self.detail = np.full(rows.height, "", object)
        self.score = np.ones(rows.height)

    def passed(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.reason == "")

    def apply_rules(self, rows: Features) -> None:
        for rule in RULES:
            values = rule.measure(rows)
            for place in np.flatnonzero(rule.fails(rows, values) & (self.reason == "")):
                self.reason[place] = rule.reason
                self.detail[place] = rule.explain(rows, int(place), float(values[place]))
            if rule.graded:
                self.score = np.fmin(self.score, np.clip(1 - values / max(rule.threshold(rows), SMALLEST_LIMIT), 0, 1))

    def apply_items(self, rows: Features, items: Decontaminator) -> None:
        hits = items.find(rows.words("instruction"), rows.words("response"), hash_words(rows.history().to_list()))
        for place in self.passed():
            if hits.item[place]:
                self.reason[place] = CONTAMINATED
                part = "all of it" if hits.cover[place] == 1 else f"{hits.cover[place]:.2f} of its 8-grams"
                self.detail[place] = f"{hits.item[place]}: {part}"

    def table(self) -> pl.DataFrame:
        """batch, row_id, reason (empty: kept) and score of each row."""
        return self.ids.with_columns(
            pl.Series("reason", self.reason.tolist(), _REASONS), pl.Series("score", self.score, pl.Float64)
        )


class _Ledger:
    """The verdicts so far: what tells rows apart in memory, the details of rejection in files where there is a folder.

    Rows that passed rules and benchmarks are survivors, numbered as they came, until `close` rejects the duplicates.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._tables, self._tasks = [pl.DataFrame(schema=_VERDICT)], [np.zeros(0, np.uint64)]
        self._details: list[pl.LazyFrame] = [pl.LazyFrame(schema=_DETAIL)]
        self._waiting: list[pl.Series] = []

    def add(self, verdict: _Verdict, tasks: Sequence[str]) -> None:
        self._tables.append(verdict.table())
        self._tasks.append(hash_tasks(tasks))
        self._waiting.append(pl.Series("detail", verdict.detail.tolist(), pl.String))
        if len(self._waiting) == DETAILS_AT_ONCE:
            self._write_details()

    def close(self, near: NearDuplicates) -> pl.DataFrame:
        """_VERDICT with a reason for each row that repeats an earlier one, and which row it repeats how closely."""
        self._write_details()
        table, tasks = pl.concat(self._tables), np.concatenate(self._tasks)
        self._tables.clear()
        self._tasks.clear()
        passed = np.flatnonzero((table["reason"] == "").to_numpy())
        survivors = table.select("batch", "row_id")[passed].with_row_index("survivor")
        order = survivors.sort("batch", "row_id", "survivor")["survivor"].to_numpy()
        repeats = repeated(order, tasks, near)
        place = passed[repeats.row]
        reason = table["reason"].to_physical().to_numpy().copy()
        reason[place] = np.where(repeats.exact, _CODES[EXACT], _CODES[NEAR])
        original, similarity = np.full(table.height, -1), np.full(table.height, np.nan)
        original[place], similarity[place] = passed[repeats.original], repeats.similarity
        return table.with_columns(
            _REASONS.categories.cast(_REASONS).gather(reason).alias("reason"),
            table["row_id"].gather(pl.Series(original).replace(-1, None)).alias("repeats"),
            pl.Series("similarity", similarity),
        )

    def details(self) -> pl.LazyFrame:
        """The column `detail` of all rows, empty where rules and benchmarks had no objection."""
        return pl.concat(self._details)

    def _write_details(self) -> None:
        if not self._waiting:
            return
        frame = pl.concat(self._waiting).to_frame()
        self._waiting.clear()
        if self._folder is None:
            self._details.append(frame.lazy())
            return
        path = self._folder / f"details-{len(self._details):06}.parquet"
        frame.write_parquet(path, compression="zstd")
        self._details.append(pl.scan_parquet(path, glob=False))


_REASONS = pl.Enum(["", *dict.fromkeys(rule.reason for rule in RULES), CONTAMINATED, EXACT, NEAR])
_CODES = {reason: code for code, reason in enumerate(_REASONS.categories)}
_VERDICT = pl.Schema({"batch": pl.String, "row_id": pl.String, "reason": _REASONS, "score": pl.Float64})
_DETAIL = pl.Schema({"detail": pl.String})
_OVERLAY = ("reason", "score", "repeats", "similarity")


def _counts(reasons: pl.Series) -> dict[str, int]:
    """Rows by reason, most frequent first; kept rows left out."""
    table = reasons.filter(reasons != "").cast(pl.String).to_frame("reason").group_by("reason").len()
    return dict(table.sort(["len", "reason"], descending=[True, False]).iter_rows())
