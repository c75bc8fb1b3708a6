"""Every row judged once: rules, benchmark items, exact and near-duplicates; the first objection is the reason.

Benchmark items come before duplicates, so that a row is never dropped for the sake of one that is itself dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.schemas.tables import JUDGED, REJECTED
from synth_assets.stages.filtering.decisions import CONTAMINATED, EXACT, NEAR, NO_RECALLS, RowDecision, RowLog, chunks
from synth_assets.stages.filtering.features import SIDES, Features, Floats, TokenLimits
from synth_assets.stages.filtering.pass_rates import PassRates
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.score import score
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.storage.retractions import RECALLED
from synth_assets.text.decontamination import Decontaminator
from synth_assets.text.near_duplicates import NearDuplicates
from synth_assets.text.words import hash_words

REASONS = (*(rule.reason for rule in RULES), CONTAMINATED, EXACT, NEAR, RECALLED)


@dataclass(frozen=True)
class FilterResult:
    """What became of the rows.

    Attributes:
        kept: JUDGED, in the order of the input; score.py says what `score` means.
        rejected: REJECTED, in the order of the input.
        reasons: rows by reason, most frequent first.
        fates: row_id and fate ("kept" or the reason) of every row.
        pass_rates: reason, limit, threshold and pass_rate: what each rule alone would let through at other thresholds.
    """

    kept: pl.LazyFrame
    rejected: pl.LazyFrame
    reasons: dict[str, int]
    fates: pl.DataFrame
    pass_rates: pl.DataFrame


def apply_filters(
    rows: pl.LazyFrame,
    items: pl.DataFrame,
    spec: FilterSpec,
    base: TokenLimits,
    scratch: Path,
    recalled: Mapping[str, str] = NO_RECALLS,
) -> FilterResult:
    """Keep one good row for each distinct task.

    Of duplicates the row of the lowest (batch, row_id) is kept, so that the order of the rows changes nothing and a new
    batch does not displace rows of an older one. A recalled row comes before them all: what repeats it is rejected as
    its duplicate, so that its text does not return under another id. The table is read twice, in chunks; in memory stay
    some hundred bytes a row.

    Args:
        rows: INSTRUCTIONS, of any length.
        items: BENCHMARK_ITEMS of all suites.
        spec: the thresholds.
        base: the model to be trained.
        scratch: folder for temporary files, of which the results are read as long as they are used.
        recalled: row_id -> why a person took the row back.

    Raises:
        ValueError: no benchmark items, no rows, or no row is left; says how many each reason rejected.
    """
    decontaminator = Decontaminator(items, spec.benchmark_cover)
    ledger, rates = RowLog(("batch", "row_id"), REASONS, scratch, recalled), PassRates()
    with NearDuplicates(spec.near_duplicate_similarity, scratch) as near:
        for chunk in chunks(rows):
            features, verdict = Features(chunk, spec, base), RowDecision(chunk)
            measured = apply_rules(features, verdict, rates)
            apply_items(features, verdict, decontaminator)
            passed = verdict.passed()
            near.add_words(features.task_words(passed))
            ledger.add(
                chunk,
                verdict,
                features.tasks().gather(passed).to_list(),
                pl.DataFrame({"score": score(features, measured)}),
            )
        ledger.reject_repeats(near)
    ledger.take_back()
    reasons = ledger.reasons()
    if not ledger.passed().size:
        table = "\n".join(f"  {reason}: {count}" for reason, count in reasons.items()) or "  there were none to judge"
        raise ValueError(f"no instruction row is left of {ledger.table.height}; rejected by reason:\n{table}")
    return FilterResult(*ledger.write(rows, JUDGED, REJECTED), reasons, ledger.fates(), rates.table())


def apply_rules(rows: Features, verdict: RowDecision, rates: PassRates) -> dict[str, Floats]:
    """Object to what a rule objects to; gives what each rule measured, by its reason."""
    measured = {rule.reason: rule.measure(rows) for rule in RULES}
    for rule in RULES:
        values = measured[rule.reason]
        rates.add(rule, rows, values)
        for place in np.flatnonzero(rule.fails(rows, values) & (verdict.reason == "")).tolist():
            verdict.reject(place, rule.reason, rule.explain(rows, place, float(values[place])))
    return measured


def apply_items(rows: Features, verdict: RowDecision, items: Decontaminator, *others: pl.Series) -> None:
    """Object to rows that repeat a benchmark item in any text, of which `others` has more than the rows do."""
    texts = (*(rows.text(side) for side in SIDES), rows.history(), *others)
    words = [*(rows.words(side) for side in SIDES), *(hash_words(text.to_list()) for text in texts[2:])]
    hits = items.find_words(words, texts)
    for place in verdict.passed().tolist():
        if hits.item[place]:
            part = "all of it" if hits.cover[place] == 1 else f"{hits.cover[place]:.2f} of its 8-grams"
            verdict.reject(place, CONTAMINATED, f"{hits.item[place]}: {part}")
