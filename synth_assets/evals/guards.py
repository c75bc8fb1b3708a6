"""Regression guards, detectable effects and null-model baselines of benchmark scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from synth_assets.evals.suite import SEALED, Suite, items_of, null_scores
from synth_assets.evals.suites import SUITES
from synth_assets.evals.unanswerable import MAX_LEFT_OUT_SHARE, left_out_share
from synth_assets.reporting.markdown import table
from synth_assets.schemas.records import BASE
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.stats.intervals import estimate
from synth_assets.stats.paired import NonInferiority, non_inferiority
from synth_assets.stats.power import minimum_detectable_difference, minimum_detectable_effect

GUARD_MARGIN = 0.05
"""Non-inferiority margin, as a share: five points are noticeable to users and detectable with some hundred items."""
SPLIT = "test"


@dataclass(frozen=True)
class DetectableEffect:
    """The minimum detectable effect of a suite: power 0.8 at p < .05.

    `effect` is None if the two models never differ, so that the variance is unknown.
    """

    suite: str
    metric: str
    n: int
    effect: float | None


@dataclass(frozen=True)
class GuardResult:
    """The result of a non-inferiority test on a guarded metric; `guards` is "safety", "knowledge" or "sealed".

    `left_out` items are excluded because one of the two models cannot take them. If they exceed MAX_LEFT_OUT_SHARE of
    the items, "held" becomes "not shown"; "lost" stays "lost".
    """

    suite: str
    metric: str
    guards: str
    found: NonInferiority
    left_out: int = 0


@dataclass(frozen=True)
class NullComparison:
    """The best model of a suite against the best null model; `low` is the lower end of the model's interval."""

    suite: str
    metric: str
    best_model: str
    low: float
    best_null: str
    null_value: float

    @property
    def held(self) -> bool:
        """Return whether the whole interval is above the best null model."""
        return self.low > self.null_value


def detectable_effects(scores: pl.DataFrame, first: str, second: str) -> list[DetectableEffect]:
    """Return the minimum detectable effect of each suite's primary metric on the shared test items."""
    effects = []
    for suite in _suites(scores):
        metric = suite.metrics[0]
        left, right = (scores.filter(model=name) for name in (first, second))
        paired = _paired(left, right, suite.name, SPLIT, metric)
        differences = (paired["second"] - paired["first"]).to_list()
        effects.append(DetectableEffect(suite.name, metric, paired.height, _effect(differences)))
    return effects


def regression_guards(scores: pl.DataFrame, candidate: str) -> list[GuardResult]:
    """Test the candidate against the base on every guarded metric, on shared test items."""
    first, second = (scores.filter(model=name) for name in (BASE, candidate))
    return losses(first, second, dict.fromkeys(("safety", "knowledge"), GUARD_MARGIN))


def losses(first: pl.DataFrame, second: pl.DataFrame, margins: Mapping[str, float]) -> list[GuardResult]:
    """Test one model against another on every guarded metric, on shared test items.

    Args:
        first: ITEM_SCORES of the reference model.
        second: ITEM_SCORES of the tested model.
        margins: "safety" or "knowledge" to the non-inferiority margin: the tolerated loss of mean score, 0..1.
    """
    results = []
    for suite in _suites(second):
        for metric, guards in suite.guards.items():
            outcome, left_out = _test(first, second, (suite.name, SPLIT, metric), margins[guards])
            results += [GuardResult(suite.name, metric, guards, outcome, left_out)] if outcome else []
    return results


def sealed_losses(first: pl.DataFrame, second: pl.DataFrame, margin: float) -> list[GuardResult]:
    """Test one model against another on the sealed items, on the primary metric of each suite."""
    results = []
    for name in second.filter(split=SEALED)["suite"].unique(maintain_order=True):
        metric = SUITES[name].metrics[0]
        outcome, left_out = _test(first, second, (name, SEALED, metric), margin)
        results += [GuardResult(name, metric, SEALED, outcome, left_out)] if outcome else []
    return results


def compare_with_null(scores: pl.DataFrame, items: pl.DataFrame) -> list[NullComparison]:
    """Compare the best model with the best null model on each suite's primary metric and scored test items."""
    comparisons = []
    for suite in _suites(scores):
        suite_scores = _scored(scores, suite.name, SPLIT, suite.metrics[0])
        scored_items = _scored_items(suite_scores, items, suite)
        if scored_items.is_empty():
            continue
        nulls = {name: value[suite.metrics[0]] for name, value in _nulls(suite, scored_items).items() if value}
        lows = dict(_lower_bounds(suite_scores))
        model, null = max(lows, key=lambda name: lows[name]), max(nulls, key=lambda name: nulls[name])
        comparisons.append(NullComparison(suite.name, suite.metrics[0], model, lows[model], null, nulls[null]))
    return comparisons


def null_values(scores: pl.DataFrame, items: pl.DataFrame) -> dict[str, Mapping[str, Mapping[str, float]]]:
    """Return suite -> null model -> metric -> mean on the test items that models were scored on."""
    scored_items = {
        suite.name: (suite, _scored_items(_scored(scores, suite.name, SPLIT, suite.metrics[0]), items, suite))
        for suite in _suites(scores)
    }
    return {name: _nulls(suite, rows) for name, (suite, rows) in scored_items.items() if not rows.is_empty()}


def detectable_table(effects: Sequence[DetectableEffect]) -> str:
    """Return the minimum detectable effects as a Markdown table."""
    headers = ("suite", "metric", "n", "minimum detectable effect")
    rows = [(effect.suite, effect.metric, effect.n, _points(effect.effect)) for effect in effects]
    return table(headers, rows, numbers=headers[2:])


def _points(effect: float | None) -> str:
    return "no difference was seen" if effect is None else f"{100 * effect:.1f} points"


def _effect(differences: Sequence[float]) -> float | None:
    if not any(differences):
        return None
    if set(differences) <= {-1.0, 0.0, 1.0}:
        return min(1.0, minimum_detectable_effect(len(differences), sum(map(abs, differences)) / len(differences)))
    return minimum_detectable_difference(differences) if len(differences) > 1 else None


def _scored(scores: pl.DataFrame, suite: str, split: str, metric: str) -> pl.DataFrame:
    """Return the rows that have a score."""
    return scores.filter(pl.col("score").is_between(0, 1)).filter(suite=suite, split=split, metric=metric)


def _scored_items(scored: pl.DataFrame, items: pl.DataFrame, suite: Suite) -> pl.DataFrame:
    return items.filter(suite=suite.name, split=SPLIT).join(scored, on="item_id", how="semi", maintain_order="left")


def _test(
    first: pl.DataFrame, second: pl.DataFrame, key: tuple[str, str, str], margin: float
) -> tuple[NonInferiority | None, int]:
    """Return the test result and the number of excluded items; no result if the metric applies to no shared item."""
    left_out = _left_out(first, second, *key)
    paired = _paired(first, second, *key)
    if paired.is_empty():
        return (NonInferiority(0, 0.0, -1.0, 1.0, "not shown") if left_out else None), left_out
    values = paired["first"].to_list(), paired["second"].to_list()
    result = non_inferiority(*values, paired["cluster"].to_list(), margin=margin)
    if result.verdict == "held" and left_out_share(left_out, result.n) > MAX_LEFT_OUT_SHARE:
        result = replace(result, verdict="not shown")
    return result, left_out


def _left_out(first: pl.DataFrame, second: pl.DataFrame, suite: str, split: str, metric: str) -> int:
    """Return the number of shared items that one of the two models cannot take."""
    left, right = (
        scores.filter(suite=suite, split=split, metric=metric)
        .select("item_id", pl.col("finish_reason").is_in(UNANSWERABLE).fill_null(value=False).alias("left_out"))
        .unique("item_id", maintain_order=True)
        for scores in (first, second)
    )
    joined = left.join(right, on="item_id", suffix="_second")
    return joined.filter(pl.col("left_out") | pl.col("left_out_second")).height


def _paired(first: pl.DataFrame, second: pl.DataFrame, suite: str, split: str, metric: str) -> pl.DataFrame:
    """Return columns cluster, first, second: the items that both models have a score for."""
    left, right = (
        _scored(scores, suite, split, metric).unique("item_id", maintain_order=True) for scores in (first, second)
    )
    joined = left.join(right, on="item_id", suffix="_second", maintain_order="left")
    return joined.select("cluster", first="score", second="score_second")


def _nulls(suite: Suite, items: pl.DataFrame) -> Mapping[str, Mapping[str, float]]:
    return null_scores(suite, items_of(items))


def _lower_bounds(scores: pl.DataFrame) -> Iterator[tuple[str, float]]:
    for (model,), rows in scores.group_by("model", maintain_order=True):
        yield str(model), estimate(rows["score"].to_list(), rows["cluster"].to_list()).low


def _suites(scores: pl.DataFrame) -> list[Suite]:
    return [SUITES[name] for name in scores.filter(split=SPLIT)["suite"].unique(maintain_order=True)]
