"""Apply all filters to each row: rules, benchmark items, duplicates by words and by meaning.

The first failure is the reason. Benchmark items are checked before duplicates, so that no row is rejected as the
duplicate of a rejected row.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import INSTRUCTIONS, JUDGED, REJECTED
from synth_assets.stages.filtering.decisions import (
    CONTAMINATED,
    EXACT,
    NEAR,
    SEMANTIC,
    SEMANTIC_ITEM,
    FilterOutcome,
    RowDecision,
    RowLog,
    chunks,
)
from synth_assets.stages.filtering.features import SIDES, Features, Floats
from synth_assets.stages.filtering.pass_rates import PassRates
from synth_assets.stages.filtering.reviews import REVIEWED, SOFT_RULES, PersonDecisions
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.score import score
from synth_assets.stages.filtering.semantic import SemanticFilter, Semantics
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.storage.retractions import RECALLED, recall_reasons
from synth_assets.text.decontamination import Decontaminator
from synth_assets.text.near_duplicates import NearDuplicates
from synth_assets.text.token_limits import TokenLimits
from synth_assets.text.words import hash_words

FILTER_CODE_VERSION = fingerprint(FilterSpec(), [rule.reason for rule in RULES])
REASONS = (*(rule.reason for rule in RULES), CONTAMINATED, EXACT, NEAR, RECALLED)
SEMANTIC_REASONS = (SEMANTIC_ITEM, SEMANTIC)
"""Reasons that need an embedding model."""
NO_DECISIONS = PersonDecisions()


@dataclass(frozen=True)
class FilterResult(FilterOutcome):
    """Result of the filter of instructions: JUDGED with the `score` of score.py, and REJECTED.

    Attributes:
        pass_rates: reason, limit, threshold and pass_rate of each rule alone at other thresholds.
    """

    pass_rates: pl.DataFrame


def all_instructions(batches: Mapping[str, pl.LazyFrame], imported: pl.LazyFrame) -> pl.LazyFrame:
    """Return INSTRUCTIONS of all batches, in the order of their names, then the imported ones."""
    return pl.concat([pl.LazyFrame(schema=INSTRUCTIONS), *(batches[name] for name in sorted(batches)), imported])


def decisions_of_people(recalls: pl.DataFrame, reviews: pl.DataFrame) -> PersonDecisions:
    """Return what people decided, from RECALLS and REVIEWS."""
    return PersonDecisions(recall_reasons(recalls), reviews)


def apply_filters(  # noqa: PLR0913
    rows: pl.LazyFrame,
    items: pl.DataFrame,
    spec: FilterSpec,
    base: TokenLimits,
    scratch: Path,
    people: PersonDecisions = NO_DECISIONS,
    *,
    semantics: Semantics | None = None,
) -> FilterResult:
    """Keep one good row for each distinct task.

    Of duplicates the row of the lowest (batch, row_id) is kept, so that the result does not depend on the order of the
    rows and a new batch does not displace rows of an older one. A recalled row precedes all others: its duplicates are
    rejected too, so that its text does not return under another id. Then come the rows that a reviewer kept. The table
    is read twice, in chunks; only about 100 bytes a row stay in memory.

    Args:
        rows: INSTRUCTIONS, of any length.
        items: BENCHMARK_ITEMS of all suites.
        spec: the thresholds.
        base: token limits of the model to be trained.
        scratch: folder for temporary files; the results are read from it and need it as long as they are used.
        people: recalls, and the decisions of reviewers. An edited row is filtered with its new text; a rejected one is
            rejected if no rule rejects it; a kept one passes SOFT_RULES and stays when its duplicates are rejected.
        semantics: compares rows by meaning too; None: only by their words.

    Raises:
        ValueError: no benchmark items, no rows, or no row is left; the message has the number of rows by reason.
    """
    decontaminator = Decontaminator(items, spec.benchmark_cover)
    rows, kept = people.edit(rows), people.kept
    reasons = (*REASONS, *SEMANTIC_REASONS, REVIEWED)
    log, rates = RowLog(("batch", "row_id"), reasons, scratch, people.recalled, kept), PassRates()
    near_duplicates = NearDuplicates(spec.near_duplicate_similarity, scratch)
    with near_duplicates, SemanticFilter(semantics, items, scratch) as semantic:
        for chunk in chunks(rows):
            features, decision = Features(chunk, spec, base), RowDecision(chunk)
            values = apply_rules(features, decision, rates, kept)
            apply_items(features, decision, decontaminator)
            semantic.add(features, decision)
            people.reject(chunk, decision)
            passed = decision.passed()
            near_duplicates.add_words(features.task_words(passed))
            log.add(
                chunk,
                decision,
                features.tasks().gather(passed).to_list(),
                pl.DataFrame({"score": score(features, values)}),
            )
        semantic.reject_repeats(log, log.reject_repeats(near_duplicates))
    log.apply_retractions()
    reasons = log.reasons()
    if not log.passed().size:
        counts = "\n".join(f"  {reason}: {count}" for reason, count in reasons.items()) or "  there were no rows"
        raise ValueError(f"no instruction row is left of {log.table.height}; rejected by reason:\n{counts}")
    return FilterResult(*log.write(rows, JUDGED, REJECTED), reasons, log.fates(), rates.table())


def apply_rules(
    rows: Features, decision: RowDecision, rates: PassRates, kept: Collection[str] = frozenset()
) -> dict[str, Floats]:
    """Reject the rows that fail a rule, and return the measured values by the rule's reason.

    The rows with the ids `kept` pass SOFT_RULES.
    """
    measured = {rule.reason: rule.measure(rows) for rule in RULES}
    exempt = rows.rows["row_id"].is_in(pl.Series([*kept], dtype=pl.String).implode()).fill_null(value=False).to_numpy()
    for rule in RULES:
        values = measured[rule.reason]
        rates.add(rule, rows, values)
        fails = rule.fails(rows, values) & (decision.reason == "")
        for index in np.flatnonzero(fails & ~exempt if rule.reason in SOFT_RULES else fails).tolist():
            decision.reject(index, rule.reason, rule.explain(rows, index, float(values[index])))
    return measured


def apply_items(rows: Features, decision: RowDecision, items: Decontaminator, *others: pl.Series) -> None:
    """Reject rows that contain a benchmark item in any of their texts or in `others`, further texts of the rows."""
    texts = (*(rows.text(side) for side in SIDES), rows.history(), *others)
    words = [*(rows.words(side) for side in SIDES), *(hash_words(text.to_list()) for text in texts[2:])]
    hits = items.find_words(words, texts)
    for index in decision.passed().tolist():
        if hits.item[index]:
            part = "all of it" if hits.cover[index] == 1 else f"{hits.cover[index]:.2f} of its 8-grams"
            decision.reject(index, CONTAMINATED, f"{hits.item[index]}: {part}")
