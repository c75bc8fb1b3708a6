"""Compare opponent and candidate on the same items, and apply the promotion policy to the result."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from synth_assets.evals.guards import losses, sealed_losses
from synth_assets.evals.suites import SUITES
from synth_assets.evals.unanswerable import count_unanswerable, unanswerable_text
from synth_assets.schemas.records import CheckResult, Decision, PairedTest
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.stages.promotion.candidates import Scores
from synth_assets.stages.promotion.on_demand_scoring import WeightsError
from synth_assets.stages.promotion.policy import (
    PairedEvidence,
    PromotionCandidate,
    PromotionPolicy,
    decide,
    needs_sealed_items,
)
from synth_assets.stats.paired import paired_test

SPLIT = "test"


def evaluate_promotion(
    candidate: PromotionCandidate | None,
    opponent: PromotionCandidate,
    scores: Scores,
    check_results: Sequence[CheckResult],
    policy: PromotionPolicy,
) -> Decision:
    """Return the policy's decision, scoring models on missing items and, if nothing else refuses, on sealed items.

    Args:
        candidate: None if no adapter that may serve was trained.
        opponent: the champion, or the base model.
        scores: scores of both.
        check_results: as in `decide`.
        policy: the thresholds.
    """
    if candidate is None or (candidate.version and candidate.version == opponent.version):
        return decide(candidate, opponent, PairedEvidence(), check_results, policy)
    evidence = _test_evidence(candidate, opponent, scores, policy)
    decision = decide(candidate, opponent, evidence, check_results, policy)
    if not needs_sealed_items(decision, evidence):
        return decision
    evidence = _with_sealed_items(evidence, candidate, opponent, scores, policy)
    return decide(candidate, opponent, evidence, check_results, policy)


def _test_evidence(
    candidate: PromotionCandidate, opponent: PromotionCandidate, scores: Scores, policy: PromotionPolicy
) -> PairedEvidence:
    suite = str(scores.table["suite"][0])
    try:
        both = scores.of(opponent), scores.of(candidate)
    except WeightsError as error:
        return PairedEvidence(missing=str(error))
    test = paired_comparison(*both, policy, (suite, SUITES[suite].metrics[0]))
    if test is None:
        counts = [count for count in count_unanswerable(pl.concat(both)) if count.split == SPLIT]
        return PairedEvidence(missing="; ".join(map(unanswerable_text, counts)))
    return PairedEvidence(paired_test=test, guards=losses(*both, policy.margins))


def _with_sealed_items(
    evidence: PairedEvidence,
    candidate: PromotionCandidate,
    opponent: PromotionCandidate,
    scores: Scores,
    policy: PromotionPolicy,
) -> PairedEvidence:
    try:
        both = scores.sealed(opponent), scores.sealed(candidate)
    except WeightsError as error:
        return replace(evidence, missing=str(error))
    models_scored = scores.scorer.count_scored_models()
    return replace(evidence, sealed=sealed_losses(*both, policy.sealed_margin), models_scored=models_scored)


def paired_comparison(
    opponent: pl.DataFrame, candidate: pl.DataFrame, policy: PromotionPolicy, default: tuple[str, str]
) -> PairedTest | None:
    """Return the paired test on the test split of the deciding suite; None without common scored items.

    Both must have rows for the same items: an item that only one of them has gives None. Items that one of them cannot
    answer are left out for both, and counted.

    Args:
        opponent: ITEM_SCORES rows of one model.
        candidate: ITEM_SCORES rows of the other.
        policy: names suite and metric, or leaves them open.
        default: suite and metric where the policy leaves them open.
    """
    suite, metric = policy.suite or default[0], policy.metric or default[1]
    keys = ["item_id", "cluster"]
    first, second = (
        rows.filter(suite=suite, split=SPLIT, metric=metric).select(*keys, "score", "finish_reason")
        for rows in (opponent, candidate)
    )
    both = first.join(second, on=keys, suffix="_second").sort(keys)
    if not both.height == first.height == second.height:
        return None
    scored = both.drop_nulls(["score", "score_second"])
    if scored.is_empty():
        return None
    names = str(opponent["model"][0]), str(candidate["model"][0])
    values = scored["score"].to_list(), scored["score_second"].to_list()
    left_out = both.filter(pl.any_horizontal(pl.col("finish_reason", "finish_reason_second").is_in(UNANSWERABLE)))
    test = paired_test(names, (suite, SPLIT, metric), *values, scored["cluster"].to_list())
    return replace(test, left_out=left_out.height)
