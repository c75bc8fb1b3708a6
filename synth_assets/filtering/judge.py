"""Every row judged once: rules, benchmark items, exact and near-duplicates; the first objection is the reason.

Benchmark items come before duplicates, so that a row is never dropped for the sake of one that is itself dropped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from synth_assets.filtering.decontamination import Decontaminator
from synth_assets.filtering.duplicates import NearDuplicates, first_of_kind
from synth_assets.filtering.features import Base, CountTokens, Features
from synth_assets.filtering.rules import RULES
from synth_assets.filtering.spec import FilterSpec
from synth_assets.recalls import RECALLED
from synth_assets.records import JUDGED, REJECTED
from synth_assets.text import hash_words, normalise

CHUNK_ROWS = 2048
SMALLEST_LIMIT = 1e-9  # a limit of 0 leaves no distance to measure
NO_RECALLS: Mapping[str, str] = MappingProxyType({})
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
    recalled: Mapping[str, str] = NO_RECALLS,
) -> Verdicts:
    """Keep one good row for each distinct task.

    Of duplicates the row of the lowest (batch, row_id) is kept, so that the order of the rows changes nothing and a new
    batch does not displace rows of an older one. A recalled row comes before them all: what repeats it is rejected as
    its duplicate, so that its text does not return under another id. The table is read in chunks, twice if the result
    is collected.

    Args:
        rows: INSTRUCTIONS, of any length.
        items: BENCHMARK_ITEMS of all suites.
        spec: the thresholds.
        count_tokens: the base model's token count of each text, without control tokens.
        context_tokens: how many tokens the base takes at once.
        recalled: row_id -> why a person took the row back.

    Raises:
        ValueError: no benchmark items, no rows, or no row is left; says how many each reason rejected.
    """
    base, decontaminator = Base(count_tokens, context_tokens), Decontaminator(items, spec.benchmark_cover)
    verdicts = _without_recalled(_judge_rows(rows, decontaminator, spec, base, recalled), recalled)
    reasons = _counts(verdicts)
    if not (verdicts["reason"] == "").any():
        table = "\n".join(f"  {reason}: {count}" for reason, count in reasons.items()) or "  there were none to judge"
        raise ValueError(f"no instruction row is left of {verdicts.height}; rejected by reason:\n{table}")
    told = pl.concat([rows, verdicts.drop("row_id", "batch").lazy()], how="horizontal")
    kept, rejected = pl.col("reason") == "", pl.col("reason") != ""
    return Verdicts(
        kept=told.filter(kept).select(JUDGED.names()),
        rejected=told.filter(rejected).select(REJECTED.names()),
        reasons=reasons,
        fates=verdicts.select("row_id", pl.col("reason").replace("", "kept").alias("fate")),
    )


def _without_recalled(verdicts: pl.DataFrame, recalled: Mapping[str, str]) -> pl.DataFrame:
    """The verdicts with the reason `recalled` for each row that a person took back, whatever else speaks against it."""
    if not recalled:
        return verdicts
    out = pl.col("row_id").is_in([*recalled])
    return verdicts.with_columns(
        reason=pl.when(out).then(pl.lit(RECALLED)).otherwise("reason"),
        detail=pl.when(out).then(pl.col("row_id").replace(recalled)).otherwise("detail"),
    )


def _judge_rows(
    rows: pl.LazyFrame, items: Decontaminator, spec: FilterSpec, base: Base, recalled: Mapping[str, str]
) -> pl.DataFrame:
    """batch, row_id, reason (empty: kept), detail and score of every row, in order."""
    parts: list[pl.DataFrame] = []
    tasks: list[int] = []
    with NearDuplicates(spec.near_duplicate_similarity) as near:
        for chunk in _chunks(rows):
            features = Features(chunk, spec, base)
            verdict = _Verdict(chunk)
            verdict.apply_rules(features)
            verdict.apply_items(features, items)
            passed = verdict.passed()
            task_texts = features.tasks().gather(passed).to_list()
            near.add(task_texts)
            tasks.extend(xxhash.xxh3_64_intdigest(normalise(text).encode()) for text in task_texts)
            parts.append(verdict.table())
        table = pl.concat(parts) if parts else pl.DataFrame(schema=_VERDICT)
        return _reject_duplicates(table, np.array(tasks, np.uint64), near, recalled)


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
        columns = {"reason": self.reason.tolist(), "detail": self.detail.tolist(), "score": self.score}
        return self.ids.hstack(pl.DataFrame(columns, schema_overrides=_TEXTS))


_TEXTS = {"reason": pl.String, "detail": pl.String}
_VERDICT = pl.Schema(
    {"batch": pl.String, "row_id": pl.String, "reason": pl.String, "detail": pl.String, "score": pl.Float64}
)


def _reject_duplicates(
    table: pl.DataFrame, tasks: NDArray[np.uint64], near: NearDuplicates, recalled: Mapping[str, str]
) -> pl.DataFrame:
    """The table with a reason for each row that repeats an earlier one; `tasks` hashes the rows without a reason."""
    passed = np.flatnonzero((table["reason"] == "").to_numpy())
    ids = table.select("batch", "row_id").with_row_index("place")[passed]
    ranked = ids.with_row_index("survivor").with_columns(stays=~pl.col("row_id").is_in([*recalled]))
    order = ranked.sort("stays", "batch", "row_id", "place")["survivor"].to_numpy()
    _, first, kind = np.unique(tasks[order], return_index=True, return_inverse=True)
    distinct = np.sort(first)
    rank = np.full(passed.size, -1)
    rank[order[distinct]] = np.arange(distinct.size)
    reason, detail = table["reason"].to_list(), table["detail"].to_list()
    row_id = ids["row_id"].to_list()

    places: list[int] = order.tolist()

    def reject(survivor: int, why: str, original: int, similarity: float) -> None:
        reason[passed[survivor]] = why
        detail[passed[survivor]] = f"repeats {row_id[original]}, similarity {similarity:.2f}"

    for position in np.setdiff1d(np.arange(order.size), distinct):
        reject(places[position], EXACT, places[first[kind[position]]], 1.0)
    leader, similarity = first_of_kind(near.pairs(rank), distinct.size)
    for position in np.flatnonzero(leader != np.arange(leader.size)):
        reject(places[distinct[position]], NEAR, places[distinct[leader[position]]], similarity[position])
    return table.with_columns(pl.Series("reason", reason, pl.String), pl.Series("detail", detail, pl.String))


def _counts(verdicts: pl.DataFrame) -> dict[str, int]:
    rejected = verdicts.filter(pl.col("reason") != "")
    table = rejected.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    return dict(table.iter_rows())
