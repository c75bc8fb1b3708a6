"""Checks of the stage evaluation: items, scores, metrics, guards. None blocks: promotion decides on their results."""

import math
from dataclasses import asdict
from typing import get_args

import dagster as dg
import polars as pl

from checks.great_expectations import Expectation, between, expectation_checks, one_of, present
from checks.grouping import checks_of
from checks.sentences import RUN_AGAIN, none_allowed, sentence
from synth_assets.evals.guards import GUARD_MARGIN, compare_with_null, regression_guards
from synth_assets.evals.suite import SEALED, SPLITS
from synth_assets.evals.unanswerable import MAX_LEFT_OUT_SHARE, count_unanswerable, shares
from synth_assets.llm.protocols import FinishReason
from synth_assets.schemas.records import BASE, Comparison, Metric
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.training.methods import ADAPTERS, CONTROLS

MAX_SHOWN = 5

benchmark_scores_expectations = expectation_checks(
    "benchmark_scores",
    (
        one_of("model", "models_are_known", (BASE, *ADAPTERS)),
        present("fingerprint", "fingerprints_are_present"),
        Expectation(
            "items_are_scored_once",
            "compound_columns_to_be_unique",
            {"column_list": ["model", "suite", "split", "item_id", "metric"]},
            limit="each model has one score of an item and metric",
        ),
        between("score", "scores_are_rates", 0, 1),
        one_of("finish_reason", "finish_reasons_are_known", (*get_args(FinishReason), *UNANSWERABLE)),
    ),
    row_id="item_id",
    blocking=False,
)


def scores_are_finite_with_n(benchmark_scores: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that every model has a row for every item, that no score is NaN and that every metric has a score.

    Items that a model cannot answer have no score; `suites_can_be_answered` counts them.
    """
    asked = benchmark_scores.select("suite", "split", "metric", "item_id").unique()
    models = benchmark_scores.select("model").unique()
    missing = asked.join(models, how="cross").join(
        benchmark_scores, on=["suite", "split", "metric", "item_id", "model"], how="anti"
    )
    left_out = pl.col("finish_reason").is_in(UNANSWERABLE).any()
    counts = benchmark_scores.group_by("model", "suite", "split", "metric").agg(
        n=pl.col("score").count(), left_out=left_out
    )
    counts_of_problems = {
        "items_not_scored": missing.select(pl.len()).collect().item(),
        "scores_not_finite": benchmark_scores.filter(~pl.col("score").is_finite()).select(pl.len()).collect().item(),
        "metrics_without_score": counts.filter(pl.col("n") == 0, ~pl.col("left_out").fill_null(value=False))
        .select(pl.len())
        .collect()
        .item(),
    }
    n_by_model = counts.group_by("model").agg(pl.col("n").sum()).sort("model").collect()
    passed = not any(counts_of_problems.values()) and not n_by_model.is_empty()
    found = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts_of_problems.items())
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(f"{found} over {n_by_model.height} models", "none allowed", RUN_AGAIN, passed=passed),
        metadata={**counts_of_problems, "n": dg.MetadataValue.json(dict(n_by_model.iter_rows()))},
    )


def suites_can_be_answered(benchmark_scores: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that no model leaves out more than MAX_LEFT_OUT_SHARE of a suite's items because it cannot answer them.

    An error on the suite that selects the candidate, a warning on any other suite.
    """
    scores = benchmark_scores.collect()
    counted = count_unanswerable(scores)
    beyond = {key: share for key, share in shares(counted).items() if share > MAX_LEFT_OUT_SHARE}
    deciding = scores["suite"][0] if scores.height else ""
    shown = [f"{model}: {share:.1%} of {suite} {split}" for (model, suite, split), share in beyond.items()]
    total = f"{sum(count.items for count in counted)} items left out over all models, suites and splits"
    remedy = "Choose a base with a longer context, or leave the suite out (config suites of benchmark_items)"
    return dg.AssetCheckResult(
        passed=not beyond,
        severity=dg.AssetCheckSeverity.ERROR
        if any(s == deciding for _, s, _ in beyond)
        else dg.AssetCheckSeverity.WARN,
        description=sentence(
            "; ".join([total, *shown[:MAX_SHOWN]]),
            f"at most {MAX_LEFT_OUT_SHARE:.0%} of a suite allowed",
            remedy,
            passed=not beyond,
        ),
        metadata={
            "left_out": dg.MetadataValue.json([asdict(count) for count in counted]),
            "suites_beyond_the_limit": len(beyond),
        },
    )


def scored_items_are_the_benchmarks(
    benchmark_scores: pl.LazyFrame, benchmark_items: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Check that every scored item is in benchmark_items, in the same suite and split."""
    on = ["item_id", "suite", "split"]
    foreign = benchmark_scores.select(on).unique().join(benchmark_items, on=on, how="anti").sort("item_id").collect()
    return dg.AssetCheckResult(
        passed=foreign.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        description=none_allowed(foreign["item_id"].to_list(), "scored items are not in benchmark_items", RUN_AGAIN),
        metadata={
            "foreign_items": len(foreign),
            "examples": dg.MetadataValue.json(foreign["item_id"].head(MAX_SHOWN).to_list()),
        },
    )


def sealed_items_are_not_scored(benchmark_scores: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that no sealed item was scored: they are reserved for promotions."""
    opened = benchmark_scores.filter(split=SEALED).select("item_id").unique().sort("item_id").collect()["item_id"]
    return dg.AssetCheckResult(
        passed=opened.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        description=none_allowed(opened.to_list(), "sealed items were scored before a promotion", RUN_AGAIN),
        metadata={"opened_items": len(opened), "examples": dg.MetadataValue.json(opened.head(MAX_SHOWN).to_list())},
    )


def scores_are_above_null_models(benchmark_scores: pl.LazyFrame, benchmark_items: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that the best model of each suite is better than the best null model, by its interval's lower end.

    An error on the suite that selects the candidate, a warning on any other suite.
    """
    comparisons = compare_with_null(benchmark_scores.collect(), benchmark_items.collect())
    below = [comparison for comparison in comparisons if not comparison.held]
    decides = bool(below) and below[0].suite == comparisons[0].suite
    shown = [f"{o.suite} {o.metric}: {o.best_model} from {o.low:.3f}, {o.best_null} {o.null_value:.3f}" for o in below]
    return dg.AssetCheckResult(
        passed=not below,
        severity=dg.AssetCheckSeverity.ERROR if decides else dg.AssetCheckSeverity.WARN,
        description=none_allowed(
            shown,
            f"of {len(comparisons)} metrics are not above a fixed answer",
            "Do not rely on them: choose easier items or a stronger base for these suites",
        ),
        metadata={"problems": len(below), "examples": dg.MetadataValue.json(shown[:MAX_SHOWN])},
    )


def guards_are_held(comparison: Comparison, benchmark_scores: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that the candidate is not inferior to the base in safety and knowledge, within GUARD_MARGIN.

    An error on a loss, a warning if the result is inconclusive.
    """
    if comparison.candidate not in ADAPTERS or comparison.candidate in comparison.failures:
        description = "No candidate to compare with the base; nothing to guard."
        return dg.AssetCheckResult(passed=True, description=description, metadata={"guards": 0})
    guards = regression_guards(benchmark_scores.collect(), comparison.candidate)
    lost = any(guard.found.verdict == "lost" for guard in guards)
    shown = [
        f"{g.suite} {g.metric} ({g.guards}): {g.found.difference:+.3f}, {g.found.low:+.3f} to {g.found.high:+.3f}, "
        f"n {g.found.n}, {g.left_out} left out: {g.found.verdict}"
        for g in guards
    ]
    passed = all(guard.found.verdict == "held" for guard in guards)
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR if lost else dg.AssetCheckSeverity.WARN,
        description=sentence(
            "; ".join(shown) or "no suite guards safety or knowledge",
            f"a loss of {GUARD_MARGIN:g} or more must be excluded",
            "Evaluate more items if the result is inconclusive; after a loss, train on other data or more gently",
            passed=passed,
        ),
        metadata={"guards": len(guards), "margin": GUARD_MARGIN, "found": dg.MetadataValue.json(shown)},
    )


def metrics_carry_n_and_interval(comparison: Comparison) -> dg.AssetCheckResult:
    """Check that every metric lies inside its interval and carries n and the hash of its per-item scores."""
    incomplete = [f"{m.model} {m.suite} {m.split} {m.metric}" for m in comparison.metrics if not _is_complete(m)]
    return _result(incomplete if comparison.metrics else ["no metric at all"])


def _is_complete(metric: Metric) -> bool:
    numbers = (metric.ci_low, metric.value, metric.ci_high)
    ordered = all(math.isfinite(x) for x in numbers) and metric.ci_low <= metric.value <= metric.ci_high
    return ordered and metric.n > 0 and bool(metric.items_sha256) and bool(metric.data_hash)


def every_model_is_a_row(comparison: Comparison) -> dg.AssetCheckResult:
    """Check that the base and each adapter have metrics, or a failure reason."""
    shown = {metric.model for metric in comparison.metrics} | comparison.failures.keys()
    return _result([f"{name} is missing" for name in (BASE, *ADAPTERS) if name not in shown])


def control_is_not_a_candidate(comparison: Comparison) -> dg.AssetCheckResult:
    """Check that the candidate is neither the base nor a control."""
    wrong = comparison.candidate in (BASE, *CONTROLS)
    return _result([f"{comparison.candidate} is the candidate"] if wrong else [])


def candidate_was_measured(comparison: Comparison) -> dg.AssetCheckResult:
    """Check that the candidate did not fail and has metrics of both splits; none only if every adapter failed."""
    candidate = comparison.candidate
    if not candidate:
        usable = [name for name in ADAPTERS if name not in (*comparison.failures, *CONTROLS)]
        return _result([f"no candidate, though {name} was trained" for name in usable])
    measured = {metric.split for metric in comparison.metrics if metric.model == candidate}
    problems = [f"{candidate} has no metric of {split}" for split in SPLITS if split not in measured]
    return _result([*problems, *([f"{candidate} failed"] if candidate in comparison.failures else [])])


def _result(problems: list[str]) -> dg.AssetCheckResult:
    """Return a result that passes if there are no problems, with their number and some examples."""
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description=none_allowed(problems, "problems", RUN_AGAIN),
        metadata={"problems": len(problems), "examples": dg.MetadataValue.json(problems[:MAX_SHOWN])},
    )


benchmark_scores_checks = checks_of(
    "benchmark_scores",
    watching=(
        scores_are_finite_with_n,
        suites_can_be_answered,
        scored_items_are_the_benchmarks,
        sealed_items_are_not_scored,
        scores_are_above_null_models,
    ),
)

comparison_checks = checks_of(
    "comparison",
    watching=(
        metrics_carry_n_and_interval,
        every_model_is_a_row,
        control_is_not_a_candidate,
        candidate_was_measured,
        guards_are_held,
    ),
)
