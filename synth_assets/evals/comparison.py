"""Model comparison on shared items: selection of the candidate and paired significance tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import polars as pl

from synth_assets.evals.suites import SUITES
from synth_assets.evals.unanswerable import MAX_LEFT_OUT_SHARE, answered, count_unanswerable, shares
from synth_assets.schemas.records import BASE, AdapterRecord, Comparison, Metric, PairedTest
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.stats.paired import holm, paired_test
from synth_assets.training.methods import METHODS

MAX_SAMPLES = 5


def compare(
    measured: Sequence[Metric], scores: pl.DataFrame, items: pl.DataFrame, adapters: Sequence[AdapterRecord]
) -> Comparison:
    """Compare the base model and all adapters.

    The candidate is selected on the validation split. The tests use the test split, which no selection reads.

    Args:
        measured: metrics computed from `scores`.
        scores: ITEM_SCORES; the first metric of the first suite is the primary metric.
        items: BENCHMARK_ITEMS, for the prompts of the samples.
        adapters: all adapters, including controls and failed ones.

    Raises:
        ValueError: an adapter has neither scores nor a recorded failure, or the candidates have no validation scores.
    """
    failures = {adapter.name: adapter.failure for adapter in adapters if adapter.failure}
    scored = [adapter for adapter in adapters if not adapter.failure]
    models = set(scores["model"])
    if missing := [name for name in (BASE, *(a.name for a in scored)) if name not in models]:
        raise ValueError(f"benchmark_scores has no rows for {', '.join(missing)} and no recorded failure")
    suite, metric = primary(scores)
    candidate = choose_candidate(validation_values(measured, scores, scored, suite, metric), scored)
    pairs = [] if candidate is None else list(rivals(scored))
    return Comparison(
        metrics=list(measured),
        tests=paired_tests(scores, pairs, suite, metric),
        candidate=candidate or "",
        failures=failures,
        samples=samples(scores, items, candidate, suite, metric) if candidate else [],
        unanswerable=count_unanswerable(scores),
    )


def primary(scores: pl.DataFrame) -> tuple[str, str]:
    """Return the primary suite and metric: the first suite of the table and the first metric of that suite."""
    suite = str(scores["suite"][0])
    return suite, SUITES[suite].metrics[0]


def validation_values(
    measured: Sequence[Metric], scores: pl.DataFrame, adapters: Sequence[AdapterRecord], suite: str, metric: str
) -> dict[str, float]:
    """Return the validation value of each model, computed on the same items for all eligible adapters.

    If some eligible adapter cannot take an item, the item is excluded for all of them, so that no adapter gains by not
    answering. An adapter that cannot take more than MAX_LEFT_OUT_SHARE of the items has no value, unless that holds for
    every eligible adapter.

    Raises:
        ValueError: an eligible adapter has no validation scores.
    """
    split = "validation"
    values = {m.model: m.value for m in measured if (m.suite, m.metric, m.split) == (suite, metric, split)}
    validation_scores = scores.filter(suite=suite, metric=metric, split=split)
    eligible = [adapter.name for adapter in adapters if adapter.role == "candidate"]
    eligible_scores = validation_scores.filter(pl.col("model").is_in(eligible))
    if unscored := [name for name in eligible if name not in set(eligible_scores["model"])]:
        raise ValueError(
            f"no validation scores of {suite} {metric} for {', '.join(unscored)}: cannot select a candidate"
        )
    if not eligible_scores["finish_reason"].is_in(UNANSWERABLE).any():
        return values
    left_out = shares(count_unanswerable(eligible_scores))
    answering = [name for name in eligible if left_out.get((name, suite, split), 0.0) <= MAX_LEFT_OUT_SHARE]
    eligible_scores = eligible_scores.filter(pl.col("model").is_in(answering or eligible)).drop_nulls("score")
    counts = eligible_scores.group_by("item_id").agg(pl.col("model").n_unique().alias("models"))
    common = eligible_scores.join(counts.filter(models=eligible_scores["model"].n_unique()), on="item_id", how="semi")
    means = dict(common.group_by("model").agg(pl.col("score").mean()).iter_rows())
    return {name: value for name, value in values.items() if name not in eligible} | means


def choose_candidate(values: Mapping[str, float], adapters: Sequence[AdapterRecord]) -> str | None:
    """Return the adapter with the highest validation value, controls excepted; fewer parameters win a tie.

    Return None if every adapter is a control, failed, or has no validation value.
    """
    eligible = [adapter for adapter in adapters if adapter.role == "candidate" and adapter.name in values]
    ranked = sorted(eligible, key=lambda adapter: (-values[adapter.name], adapter.trainable_parameters, adapter.name))
    return ranked[0].name if ranked else None


def rivals(adapters: Sequence[AdapterRecord]) -> Iterator[tuple[str, str]]:
    """Yield the pairs to test: the base with each adapter, each control with its method, and each pair of methods."""
    by_role = {(adapter.method, adapter.role): adapter.name for adapter in adapters}
    for adapter in adapters:
        yield BASE, adapter.name
    for (method, role), name in by_role.items():
        if role == "control" and (method, "candidate") in by_role:
            yield name, by_role[method, "candidate"]
    candidates = [by_role[method, "candidate"] for method in METHODS if (method, "candidate") in by_role]
    yield from combinations(candidates, 2)


def paired_tests(scores: pl.DataFrame, pairs: Sequence[tuple[str, str]], suite: str, metric: str) -> list[PairedTest]:
    """Run a paired test for each pair on the test split and correct the p-values over all pairs (Holm).

    `difference` is the mean of the second model minus the mean of the first. Items that one of the two cannot take are
    excluded for both. A pair without a shared item has no test.
    """
    results = (_paired_test(scores, first, second, suite, metric) for first, second in pairs)
    tests = [test for test in results if test]
    corrected = holm([test.p_value for test in tests])
    return [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]


def paired_scores(scores: pl.DataFrame, first: str, second: str, suite: str, metric: str, split: str) -> pl.DataFrame:
    """Return columns item_id, cluster, first, second: the items that both models have a score for.

    Raises:
        ValueError: the models were scored on different items, or share no scored item.
    """
    paired = _joined(scores, first, second, suite, metric, split).drop_nulls(["first", "second"])
    if paired.is_empty():
        raise ValueError(f"{first} and {second} share no scored item of {suite} {split} {metric}")
    return paired.select("item_id", "cluster", "first", "second")


def samples(
    scores: pl.DataFrame, items: pl.DataFrame, candidate: str, suite: str, metric: str
) -> list[Mapping[str, str]]:
    """Return up to five prompts with the answers of the base and the candidate, selected by hash.

    The prompts come from the test split of a suite with generated text, one per cluster.
    """
    if SUITES[suite].kind != "generation":
        return []
    test = (
        items.filter(suite=suite, split="test").sort("item_hash").unique("cluster", keep="first", maintain_order=True)
    )
    answers = answered(scores.filter(suite=suite, split="test", metric=metric))
    selected = test.select("item_id", "prompt")
    for name, column in ((BASE, "before"), (candidate, "after")):
        column_answers = answers.filter(model=name).select(
            "item_id", pl.col("response").alias(column), pl.col("score").alias(f"{column}_score")
        )
        selected = selected.join(column_answers, on="item_id", how="inner", maintain_order="left")
    return [
        {name: _text(value) for name, value in row.items()} for row in selected.head(MAX_SAMPLES).iter_rows(named=True)
    ]


def _joined(scores: pl.DataFrame, first: str, second: str, suite: str, metric: str, split: str) -> pl.DataFrame:
    """Return columns item_id, cluster, first, second, left_out for all items of the two models.

    Raises:
        ValueError: the models were scored on different items.
    """
    rows = scores.filter(suite=suite, metric=metric, split=split).with_columns(
        pl.col("finish_reason").is_in(UNANSWERABLE).fill_null(value=False).alias("left_out")
    )
    left, right = (
        rows.filter(model=name).select("item_id", "cluster", "score", "left_out") for name in (first, second)
    )
    joined = left.join(
        right, on=["item_id", "cluster"], how="full", coalesce=True, suffix="_second", maintain_order="left"
    )
    if joined.height != left.height or joined.height != right.height:
        raise ValueError(f"{first} and {second} were not scored on the same items of {suite} {split}")
    left_out = pl.col("left_out") | pl.col("left_out_second")
    return joined.select("item_id", "cluster", left_out, first="score", second="score_second")


def _paired_test(scores: pl.DataFrame, first: str, second: str, suite: str, metric: str) -> PairedTest | None:
    joined = _joined(scores, first, second, suite, metric, "test")
    paired = joined.drop_nulls(["first", "second"])
    if paired.is_empty():
        return None
    values = paired["first"].to_list(), paired["second"].to_list()
    test = paired_test((first, second), (suite, "test", metric), *values, paired["cluster"].to_list())
    return replace(test, left_out=joined["left_out"].sum())


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
