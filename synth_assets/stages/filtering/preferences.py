"""Preference pairs that users bring, judged like instructions: each answer by the rules, each pair once, none held out.

The better answer must be as good as any that is trained on. The worse one may be bad, since that is what it is there
for; but it must be text that a model could have written to the task, and nobody's secret.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.schemas.tables import INSTRUCTIONS, PAIRS, REJECTED_PAIRS
from synth_assets.stages.filtering.apply import REASONS, apply_items, apply_rules
from synth_assets.stages.filtering.decisions import RowDecision, RowLog, chunks
from synth_assets.stages.filtering.features import Features, TokenLimits
from synth_assets.stages.filtering.pass_rates import PassRates
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import VALIDATION, task_texts
from synth_assets.text.decontamination import Decontaminator
from synth_assets.text.near_duplicates import DuplicatePairs, NearDuplicates
from synth_assets.text.words import Integers, normalise

REJECTED_ANSWER_RULES = (
    "empty_response",
    "too_many_characters",
    "response_too_long",
    "too_many_response_tokens",
    "control_token_in_response",
    "personal_data",
    "not_english",
    "words_too_long",
    "too_long_for_base",
    "refused_by_chat_template",
)
"""Rules that the worse answer must pass as well; it may refuse, be cut off, repeat itself or say nothing."""
PREFIX = "rejected_answer_"
IMPORT = "import-"  # what groups of imports alone are called, before the id of their first
SAME, HELD_OUT, BETWEEN = "identical_answers", "held_out_instruction", "between_groups"
PREFERENCE_REASONS = (*REASONS, *(PREFIX + name for name in REJECTED_ANSWER_RULES), SAME, HELD_OUT, BETWEEN)


@dataclass(frozen=True)
class PreferenceFilterResult:
    """What became of imported pairs: PAIRS with their group, REJECTED_PAIRS, counts by reason, and fates."""

    kept: pl.LazyFrame
    rejected: pl.LazyFrame
    reasons: dict[str, int]
    fates: pl.DataFrame


@dataclass(frozen=True)
class PairContext:
    """What imported pairs are held against.

    Attributes:
        sft_rows: SFT_ROWS, both splits.
        items: BENCHMARK_ITEMS of all suites.
        similarity: from which two instructions are of one group, as in the split of `sft_rows`.
    """

    sft_rows: pl.LazyFrame
    items: pl.DataFrame
    similarity: float


def filter_preferences(
    pairs: pl.LazyFrame, around: PairContext, spec: FilterSpec, base: TokenLimits, scratch: Path
) -> PreferenceFilterResult:
    """Keep the pairs that may be trained on, each with the group of the instructions that its own resembles.

    Of pairs that repeat each other the one of the lowest (source, pair_id) is kept. A pair whose instruction resembles
    a held-out one, or those of two groups, would carry one split into another, and is rejected.

    Args:
        pairs: PAIRS without group and split; read twice, in chunks. None at all is no error.
        around: the SFT dataset and the benchmarks.
        spec: the thresholds.
        base: the model to be trained.
        scratch: folder for temporary files, of which the results are read as long as they are used.

    Raises:
        ValueError: no benchmark items, or one without a prompt.
    """
    items = Decontaminator(around.items, spec.benchmark_cover)
    rows = around.sft_rows.select("row_id", "group", "split").collect()
    ledger = RowLog(("source", "pair_id"), PREFERENCE_REASONS, scratch)
    similar = NearDuplicates(spec.near_duplicate_similarity, scratch)
    related = NearDuplicates(around.similarity, scratch)
    with similar, related:
        for tasks in task_texts(around.sft_rows):
            related.add(tasks)
        for chunk in chunks(pairs):
            verdict = RowDecision(chunk)
            asked = _judge_chunk(chunk, verdict, items, spec, base)
            passed = verdict.passed()
            whole = pl.select(pl.concat_str(asked, chunk["chosen"], chunk["rejected"], separator="\n")).to_series()
            related.add(asked.gather(passed).to_list())
            similar.add(texts := whole.gather(passed).to_list())
            ledger.add(chunk, verdict, texts, pl.DataFrame())
        before = ledger.reject_repeats(similar)
        group = _place(ledger, before, related, rows)
    ledger.table = ledger.table.with_columns(group)
    kept, rejected = ledger.write(pairs, PAIRS, REJECTED_PAIRS)
    return PreferenceFilterResult(kept, rejected, ledger.reasons(), ledger.fates())


def _judge_chunk(
    rows: pl.DataFrame, verdict: RowDecision, items: Decontaminator, spec: FilterSpec, base: TokenLimits
) -> pl.Series:
    """Object by the rules and benchmarks; gives what each pair asks, earlier turns included."""
    chosen, worse = (Features(_with_response(rows, side), spec, base) for side in ("chosen", "rejected"))
    apply_rules(chosen, verdict, PassRates())
    for rule in RULES:
        if rule.reason in REJECTED_ANSWER_RULES:
            values = rule.measure(worse)
            for place in np.flatnonzero(rule.fails(worse, values)).tolist():
                verdict.reject(place, PREFIX + rule.reason, rule.explain(worse, place, float(values[place])))
    for place, (better, other) in enumerate(rows.select("chosen", "rejected").iter_rows()):
        if normalise(better or "") == normalise(other or ""):
            verdict.reject(place, SAME, "chosen and rejected say the same")
    apply_items(chosen, verdict, items, worse.text("response"))
    return chosen.tasks()


def _with_response(pairs: pl.DataFrame, side: str) -> pl.DataFrame:
    """The pairs as INSTRUCTIONS that one of their answers responds to."""
    rows = pairs.with_columns(pl.col(side).alias("response"))
    missing = [pl.lit(None, kind).alias(name) for name, kind in INSTRUCTIONS.items() if name not in rows.columns]
    return rows.with_columns(missing).select(INSTRUCTIONS.names())


def _place(ledger: RowLog, judged: Integers, related: NearDuplicates, rows: pl.DataFrame) -> pl.Series:
    """The group of each pair; pairs that belong to a held-out one or to several are rejected in the ledger.

    Args:
        ledger: of the pairs.
        judged: the places of the pairs in `related`.
        related: the tasks of the SFT rows, then those of the judged pairs.
        rows: row_id, group and split of the SFT rows.
    """
    passed = ledger.passed()
    places = passed[ledger.in_order(passed)]
    rank = np.full(rows.height + judged.size, -1)
    rank[: rows.height] = np.arange(rows.height)
    rank[rows.height + np.searchsorted(judged, places)] = rows.height + np.arange(places.size)
    grouping = _Grouping(rows, ledger.table["pair_id"].gather(places).to_list(), related.pairs(rank))
    objections = [grouping.join(number) for number in range(places.size)]
    against = [number for number, objection in enumerate(objections) if objection]
    found = [objection for objection in objections if objection]
    ledger.reject(
        places[against],
        np.array([reason for reason, _, _ in found], dtype=np.str_),
        pl.Series([row_id for _, row_id, _ in found], dtype=pl.String),
        np.array([similarity for _, _, similarity in found], dtype=np.float64),
    )
    group = np.full(ledger.table.height, None, object)
    group[places] = grouping.names()
    return pl.Series("group", group.tolist(), pl.String)


class _Grouping:
    """Groups of SFT rows, and imports that join them one by one."""

    def __init__(self, rows: pl.DataFrame, ids: list[str], alike: DuplicatePairs) -> None:
        """Take the rows, the ids of the imports, and which of both are alike, imports numbered after the rows."""
        self._ids = rows["row_id"].to_list() + ids
        self._group: list[str | None] = [*rows["group"].to_list(), *([None] * len(ids))]
        self._held_out = (rows["split"] == VALIDATION).to_list()
        self._rows = rows.height
        self._joined: dict[str, str] = {}  # a group of imports -> the group that it became part of
        self._near: dict[int, list[tuple[float, int]]] = defaultdict(list)
        imports = alike.second >= rows.height
        columns = (column[imports].tolist() for column in (alike.first, alike.second, alike.similarity))
        for first, second, similarity in zip(*columns, strict=True):
            self._near[second].append((similarity, first))

    def join(self, number: int) -> tuple[str, str, float] | None:
        """Put the next import into the group of what it is like, or say why not: reason, row and similarity."""
        met: dict[str, tuple[str, float]] = {}
        for similarity, other in sorted(self._near[self._rows + number], key=lambda one: (-one[0], one[1])):
            if other < self._rows and self._held_out[other]:
                return HELD_OUT, self._ids[other], similarity
            if group := self._group[other]:
                met.setdefault(self._final(group), (self._ids[other], similarity))
        rows = [group for group in met if not group.startswith(IMPORT)]
        if len(rows) > 1:
            return BETWEEN, *met[rows[1]]
        own = IMPORT + self._ids[self._rows + number]
        target = rows[0] if rows else min(met, default=own)
        self._joined |= {group: target for group in met if group != target}
        self._group[self._rows + number] = target
        return None

    def names(self) -> list[str | None]:
        """The group of each import, None where it was not let in."""
        return [group and self._final(group) for group in self._group[self._rows :]]

    def _final(self, group: str) -> str:
        while group in self._joined:
            group = self._joined[group]
        return group
