"""Filter imported preference pairs: rules for both answers, duplicates, benchmark items and held-out instructions.

The chosen answer must pass every rule. The rejected answer may be bad, but it must be a plausible response without
personal data.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import INSTRUCTIONS, PAIRS, REJECTED_PAIRS
from synth_assets.stages.filtering.apply import REASONS, apply_items, apply_rules
from synth_assets.stages.filtering.decisions import SEMANTIC_ITEM, FilterOutcome, RowDecision, RowLog, chunks
from synth_assets.stages.filtering.features import Features
from synth_assets.stages.filtering.pass_rates import PassRates
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.semantic import ItemParaphrases, Semantics
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import VALIDATION, task_texts
from synth_assets.text.decontamination import Decontaminator
from synth_assets.text.near_duplicates import DuplicatePairs, NearDuplicates
from synth_assets.text.token_limits import TokenLimits
from synth_assets.text.words import Integers, normalise

REJECTED_ANSWER_RULES = tuple(rule.reason for rule in RULES if rule.for_rejected)
PREFIX = "rejected_answer_"
IMPORT = "import-"  # name prefix of groups that consist of imports only, before the id of their first pair
SAME, HELD_OUT, BETWEEN = "identical_answers", "held_out_instruction", "between_groups"
PREFERENCE_REASONS = (*REASONS, *(PREFIX + name for name in REJECTED_ANSWER_RULES), SAME, HELD_OUT, BETWEEN)
PREFERENCE_CODE_VERSION = fingerprint(FilterSpec(), PREFERENCE_REASONS)


@dataclass(frozen=True)
class PairContext:
    """Data that imported pairs are compared with.

    Attributes:
        sft_rows: SFT_ROWS, both splits.
        items: BENCHMARK_ITEMS of all suites.
        similarity: smallest similarity of two instructions of one group, as in the split of `sft_rows`.
        semantics: finds paraphrases of items too; None: only items by their words.
    """

    sft_rows: pl.LazyFrame
    items: pl.DataFrame
    similarity: float
    semantics: Semantics | None = None


def filter_preferences(
    pairs: pl.LazyFrame, context: PairContext, spec: FilterSpec, base: TokenLimits, scratch: Path
) -> FilterOutcome:
    """Keep the pairs that may be trained on, each with the group of similar instructions.

    Of duplicate pairs the one of the lowest (source, pair_id) is kept. A pair whose instruction is similar to a
    held-out one, or to those of two groups, would leak between splits and is rejected.

    Args:
        pairs: PAIRS without group and split; read twice, in chunks. May be empty.
        context: the SFT dataset and the benchmarks.
        spec: the thresholds.
        base: token limits of the model to be trained.
        scratch: folder for temporary files; the results are read from it and need it as long as they are used.

    Raises:
        ValueError: no benchmark items, or one without a prompt.
    """
    items = Decontaminator(context.items, spec.benchmark_cover)
    rows = context.sft_rows.select("row_id", "group", "split").collect()
    paraphrases = ItemParaphrases(context.items, context.semantics) if context.semantics else None
    log = RowLog(("source", "pair_id"), (*PREFERENCE_REASONS, SEMANTIC_ITEM), scratch)
    similar = NearDuplicates(spec.near_duplicate_similarity, scratch)
    related = NearDuplicates(context.similarity, scratch)
    with similar, related:
        for tasks in task_texts(context.sft_rows):
            related.add(tasks)
        for chunk in chunks(pairs):
            decision = RowDecision(chunk)
            chosen = _decide_chunk(chunk, decision, items, spec, base)
            if paraphrases:
                paraphrases.reject(chosen, decision)
            tasks = chosen.tasks()
            passed = decision.passed()
            whole = pl.select(pl.concat_str(tasks, chunk["chosen"], chunk["rejected"], separator="\n")).to_series()
            related.add(tasks.gather(passed).to_list())
            similar.add(texts := whole.gather(passed).to_list())
            log.add(chunk, decision, texts, pl.DataFrame())
        before = log.reject_repeats(similar)
        group = _assign_groups(log, before, related, rows)
    log.table = log.table.with_columns(group)
    kept_pairs, rejected_pairs = log.write(pairs, PAIRS, REJECTED_PAIRS)
    return FilterOutcome(kept_pairs, rejected_pairs, log.reasons(), log.fates())


def _decide_chunk(
    rows: pl.DataFrame, decision: RowDecision, items: Decontaminator, spec: FilterSpec, base: TokenLimits
) -> Features:
    """Apply rules and benchmark items, and return the pairs with their chosen answer."""
    chosen, rejected = (Features(_with_response(rows, side), spec, base) for side in ("chosen", "rejected"))
    apply_rules(chosen, decision, PassRates())
    for rule in RULES:
        if rule.reason in REJECTED_ANSWER_RULES:
            values = rule.measure(rejected)
            for place in np.flatnonzero(rule.fails(rejected, values)).tolist():
                decision.reject(place, PREFIX + rule.reason, rule.explain(rejected, place, float(values[place])))
    for place, (better, other) in enumerate(rows.select("chosen", "rejected").iter_rows()):
        if normalise(better or "") == normalise(other or ""):
            decision.reject(place, SAME, "chosen and rejected are the same text")
    apply_items(chosen, decision, items, rejected.text("response"))
    return chosen


def _with_response(pairs: pl.DataFrame, side: str) -> pl.DataFrame:
    """Return the pairs as INSTRUCTIONS with one of their answers as response."""
    rows = pairs.with_columns(pl.col(side).alias("response"))
    missing = [pl.lit(None, kind).alias(name) for name, kind in INSTRUCTIONS.items() if name not in rows.columns]
    return rows.with_columns(missing).select(INSTRUCTIONS.names())


def _assign_groups(log: RowLog, compared: Integers, related: NearDuplicates, rows: pl.DataFrame) -> pl.Series:
    """Return the group of each pair, and reject pairs that belong to a held-out group or to several groups.

    Args:
        log: decisions on the pairs.
        compared: indices of the pairs in `related`.
        related: tasks of the SFT rows, then those of the compared pairs.
        rows: row_id, group and split of the SFT rows.
    """
    passed = log.passed()
    indices = passed[log.sorted_positions(passed)]
    rank = np.full(rows.height + compared.size, -1)
    rank[: rows.height] = np.arange(rows.height)
    rank[rows.height + np.searchsorted(compared, indices)] = rows.height + np.arange(indices.size)
    grouping = _Grouping(rows, log.table["pair_id"].gather(indices).to_list(), related.pairs(rank))
    problems = [grouping.join(number) for number in range(indices.size)]
    failing = [number for number, objection in enumerate(problems) if objection]
    failures = [objection for objection in problems if objection]
    log.reject(
        indices[failing],
        np.array([reason for reason, _, _ in failures], dtype=np.str_),
        pl.Series([row_id for _, row_id, _ in failures], dtype=pl.String),
        np.array([similarity for _, _, similarity in failures], dtype=np.float64),
    )
    group = np.full(log.table.height, None, object)
    group[indices] = grouping.names()
    return pl.Series("group", group.tolist(), pl.String)


class _Grouping:
    """Groups of SFT rows, to which imports are added one by one."""

    def __init__(self, rows: pl.DataFrame, ids: list[str], alike: DuplicatePairs) -> None:
        """Store the rows, the ids of the imports, and the similar pairs; imports are numbered after the rows."""
        self._ids = rows["row_id"].to_list() + ids
        self._group: list[str | None] = [*rows["group"].to_list(), *([None] * len(ids))]
        self._held_out = (rows["split"] == VALIDATION).to_list()
        self._rows = rows.height
        self._joined: dict[str, str] = {}  # group of imports -> group it was merged into
        self._near: dict[int, list[tuple[float, int]]] = defaultdict(list)
        imports = alike.second >= rows.height
        columns = (column[imports].tolist() for column in (alike.first, alike.second, alike.similarity))
        for first, second, similarity in zip(*columns, strict=True):
            self._near[second].append((similarity, first))

    def join(self, number: int) -> tuple[str, str, float] | None:
        """Add the next import to the group of similar rows, or return the problem: reason, row and similarity."""
        candidates: dict[str, tuple[str, float]] = {}
        for similarity, other in sorted(self._near[self._rows + number], key=lambda pair: (-pair[0], pair[1])):
            if other < self._rows and self._held_out[other]:
                return HELD_OUT, self._ids[other], similarity
            if group := self._group[other]:
                candidates.setdefault(self._final(group), (self._ids[other], similarity))
        rows = [group for group in candidates if not group.startswith(IMPORT)]
        if len(rows) > 1:
            return BETWEEN, *candidates[rows[1]]
        new_group = IMPORT + self._ids[self._rows + number]
        target = rows[0] if rows else min(candidates, default=new_group)
        self._joined |= {group: target for group in candidates if group != target}
        self._group[self._rows + number] = target
        return None

    def names(self) -> list[str | None]:
        """Return the group of each import, None if it was rejected."""
        return [group and self._final(group) for group in self._group[self._rows :]]

    def _final(self, group: str) -> str:
        while group in self._joined:
            group = self._joined[group]
        return group
