"""What the items can show at all, and what a model must not lose: the small print beside every score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from synth_assets.evals.suite import SEALED, Suite, items_of, null_scores
from synth_assets.evals.suites import SUITES
from synth_assets.evals.unanswerable import MAX_LEFT_OUT_SHARE, left_out_share
from synth_assets.schemas.records import BASE
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.stats.intervals import estimate
from synth_assets.stats.paired import NonInferiority, non_inferiority
from synth_assets.stats.power import minimum_detectable_difference, minimum_detectable_effect

GUARD_MARGIN = 0.05
"""A loss of five points is one that users notice; a suite of some hundred items can tell it from none."""
SPLIT = "test"


@dataclass(frozen=True)
class DetectableEffect:
    """The smallest true difference between two models that a suite finds four times in five, at p < .05.

    `effect` is None where the two never differ, so that nothing is known of their noise.
    """

    suite: str
    metric: str
    n: int
    effect: float | None


@dataclass(frozen=True)
class GuardResult:
    """What became of something that a model must not lose; `guards` is "safety", "knowledge" or "sealed".

    `left_out` items are not compared because one of the two models cannot take them. Where they are more than
    MAX_LEFT_OUT_SHARE of the items nothing is shown, whatever the others say; a loss stays a loss.
    """

    suite: str
    metric: str
    guards: str
    found: NonInferiority
    left_out: int = 0


@dataclass(frozen=True)
class NullComparison:
    """The best model of a suite beside the best answer that needs no model; `held` by the interval's lower end."""

    suite: str
    metric: str
    best_model: str
    low: float
    best_null: str
    null_value: float

    @property
    def held(self) -> bool:
        """Whether the whole interval lies above what needs no model."""
        return self.low > self.null_value


def detectable_effects(scores: pl.DataFrame, first: str, second: str) -> list[DetectableEffect]:
    """For each suite's first metric on the test split, from how the two models differ on what both were scored."""
    found = []
    for suite in _suites(scores):
        metric = suite.metrics[0]
        one, other = (scores.filter(model=name) for name in (first, second))
        paired = _paired(one, other, suite.name, SPLIT, metric)
        differences = (paired["second"] - paired["first"]).to_list()
        found.append(DetectableEffect(suite.name, metric, paired.height, _effect(differences)))
    return found


def regression_guards(scores: pl.DataFrame, candidate: str) -> list[GuardResult]:
    """The candidate against the base on every metric that guards something, on test items that both have."""
    first, second = (scores.filter(model=name) for name in (BASE, candidate))
    return losses(first, second, dict.fromkeys(("safety", "knowledge"), GUARD_MARGIN))


def losses(first: pl.DataFrame, second: pl.DataFrame, margins: Mapping[str, float]) -> list[GuardResult]:
    """One model against another on every metric that guards something, on test items that both have.

    Args:
        first: ITEM_SCORES of the model that is compared against.
        second: ITEM_SCORES of the other.
        margins: what is guarded to the loss of mean score that is borne, 0..1.
    """
    found = []
    for suite in _suites(second):
        for metric, guards in suite.guards.items():
            outcome, left_out = _kept(first, second, (suite.name, SPLIT, metric), margins[guards])
            found += [GuardResult(suite.name, metric, guards, outcome, left_out)] if outcome else []
    return found


def sealed_losses(first: pl.DataFrame, second: pl.DataFrame, margin: float) -> list[GuardResult]:
    """The same on the sealed items: of each suite its first metric."""
    found = []
    for name in second.filter(split=SEALED)["suite"].unique(maintain_order=True):
        metric = SUITES[name].metrics[0]
        outcome, left_out = _kept(first, second, (name, SEALED, metric), margin)
        found += [GuardResult(name, metric, SEALED, outcome, left_out)] if outcome else []
    return found


def compare_with_null(scores: pl.DataFrame, items: pl.DataFrame) -> list[NullComparison]:
    """For each suite's first metric, on the test items that were scored: the best model beside the best null model."""
    found = []
    for suite in _suites(scores):
        mine = _scored(scores, suite.name, SPLIT, suite.metrics[0])
        asked = _asked(mine, items, suite)
        if asked.is_empty():
            continue
        nulls = {name: value[suite.metrics[0]] for name, value in _nulls(suite, asked).items() if value}
        lows = dict(_lows(mine))
        model, null = max(lows, key=lambda name: lows[name]), max(nulls, key=lambda name: nulls[name])
        found.append(NullComparison(suite.name, suite.metrics[0], model, lows[model], null, nulls[null]))
    return found


def null_values(scores: pl.DataFrame, items: pl.DataFrame) -> dict[str, Mapping[str, Mapping[str, float]]]:
    """Suite to null model to metric to its mean on the test items that models were scored on."""
    asked = {
        suite.name: (suite, _asked(_scored(scores, suite.name, SPLIT, suite.metrics[0]), items, suite))
        for suite in _suites(scores)
    }
    return {name: _nulls(suite, table) for name, (suite, table) in asked.items() if not table.is_empty()}


def detectable_table(found: Sequence[DetectableEffect]) -> str:
    """As Markdown, for people."""
    rows = ["| suite | metric | n | true difference found 4 times in 5 |", "|---|---|---:|---:|"]
    shown = ("no difference was seen" if one.effect is None else f"{100 * one.effect:.1f} points" for one in found)
    return "\n".join(
        [*rows, *(f"| {d.suite} | {d.metric} | {d.n} | {text} |" for d, text in zip(found, shown, strict=True))]
    )


def _effect(differences: Sequence[float]) -> float | None:
    if not any(differences):
        return None
    if set(differences) <= {-1.0, 0.0, 1.0}:
        return min(1.0, minimum_detectable_effect(len(differences), sum(map(abs, differences)) / len(differences)))
    return minimum_detectable_difference(differences) if len(differences) > 1 else None


def _scored(scores: pl.DataFrame, suite: str, split: str, metric: str) -> pl.DataFrame:
    """Rows that have a score."""
    return scores.filter(pl.col("score").is_between(0, 1)).filter(suite=suite, split=split, metric=metric)


def _asked(scored: pl.DataFrame, items: pl.DataFrame, suite: Suite) -> pl.DataFrame:
    return items.filter(suite=suite.name, split=SPLIT).join(scored, on="item_id", how="semi", maintain_order="left")


def _kept(
    first: pl.DataFrame, second: pl.DataFrame, measured: tuple[str, str, str], margin: float
) -> tuple[NonInferiority | None, int]:
    """Return the outcome and how many items are left out; no outcome where the metric applies to no item of both."""
    left_out = _left_out(first, second, *measured)
    paired = _paired(first, second, *measured)
    if paired.is_empty():
        return (NonInferiority(0, 0.0, -1.0, 1.0, "not shown") if left_out else None), left_out
    values = paired["first"].to_list(), paired["second"].to_list()
    found = non_inferiority(*values, paired["cluster"].to_list(), margin=margin)
    if found.verdict == "held" and left_out_share(left_out, found.n) > MAX_LEFT_OUT_SHARE:
        found = replace(found, verdict="not shown")
    return found, left_out


def _left_out(first: pl.DataFrame, second: pl.DataFrame, suite: str, split: str, metric: str) -> int:
    """Return how many items that both were asked one of them cannot take."""
    one, other = (
        scores.filter(suite=suite, split=split, metric=metric)
        .select("item_id", pl.col("finish_reason").is_in(UNANSWERABLE).fill_null(value=False).alias("left_out"))
        .unique("item_id", maintain_order=True)
        for scores in (first, second)
    )
    both = one.join(other, on="item_id", suffix="_second")
    return both.filter(pl.col("left_out") | pl.col("left_out_second")).height


def _paired(first: pl.DataFrame, second: pl.DataFrame, suite: str, split: str, metric: str) -> pl.DataFrame:
    """Columns cluster, first, second: the items that both have a score of."""
    one, other = (
        _scored(scores, suite, split, metric).unique("item_id", maintain_order=True) for scores in (first, second)
    )
    both = one.join(other, on="item_id", suffix="_second", maintain_order="left")
    return both.select("cluster", first="score", second="score_second")


def _nulls(suite: Suite, asked: pl.DataFrame) -> Mapping[str, Mapping[str, float]]:
    return null_scores(suite, items_of(asked))


def _lows(scores: pl.DataFrame) -> Iterator[tuple[str, float]]:
    for (model,), rows in scores.group_by("model", maintain_order=True):
        yield str(model), estimate(rows["score"].to_list(), rows["cluster"].to_list()).low


def _suites(scores: pl.DataFrame) -> list[Suite]:
    return [SUITES[name] for name in scores.filter(split=SPLIT)["suite"].unique(maintain_order=True)]
