"""All models side by side on the same items: who is the candidate, and which differences are real."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import polars as pl

from synth_assets.benchmarks.suites import SUITES
from synth_assets.records import BASE, AdapterRecord, Comparison, Metric, PairedTest
from synth_assets.statistics import holm, paired_test

SAMPLES = 5
METHODS = ("prompt_tuning", "lora", "rejection_sampling", "dpo", "on_policy_dpo")
"""From the cheapest to the dearest. Every two are rivals: a reader asks whether the dearer one is worth it."""


def compare(
    found: Sequence[Metric], scores: pl.DataFrame, items: pl.DataFrame, adapters: Sequence[AdapterRecord]
) -> Comparison:
    """The comparison of the base model and all adapters.

    The candidate is chosen on the validation split; the tests use the test split, which nothing else has seen.

    Args:
        found: metrics built from `scores`.
        scores: ITEM_SCORES; the first suite's first metric decides.
        items: BENCHMARK_ITEMS, for the prompts of the samples.
        adapters: all of them, also controls and failed ones.

    Raises:
        ValueError: an adapter that did not fail has no scores, or there is nothing to choose the candidate by.
    """
    failures = {adapter.name: adapter.failure for adapter in adapters if adapter.failure}
    scored = [adapter for adapter in adapters if not adapter.failure]
    models = set(scores["model"])
    if missing := [name for name in (BASE, *(a.name for a in scored)) if name not in models]:
        raise ValueError(f"benchmark_scores has no rows of {', '.join(missing)}, and no failure is recorded")
    suite, metric = primary(scores)
    candidate = choose_candidate(found, scored, suite, metric)
    pairs = [] if candidate is None else list(rivals(scored))
    return Comparison(
        metrics=list(found),
        tests=paired_tests(scores, pairs, suite, metric),
        candidate=candidate or "",
        failures=failures,
        samples=samples(scores, items, candidate, suite, metric) if candidate else [],
    )


def primary(scores: pl.DataFrame) -> tuple[str, str]:
    """The suite and metric that decide: the table's first suite and that suite's first metric."""
    suite = str(scores["suite"][0])
    return suite, SUITES[suite].metrics[0]


def choose_candidate(found: Sequence[Metric], adapters: Sequence[AdapterRecord], suite: str, metric: str) -> str | None:
    """The adapter, controls excepted, with the highest validation value; of equals the one with fewer parameters.

    None where every adapter is a control or failed.
    """
    values = {m.model: m.value for m in found if (m.suite, m.metric, m.split) == (suite, metric, "validation")}
    eligible = [adapter for adapter in adapters if adapter.role == "candidate"]
    if unmeasured := [adapter.name for adapter in eligible if adapter.name not in values]:
        raise ValueError(
            f"no validation items of {suite} {metric} to choose a candidate by for {', '.join(unmeasured)}"
        )
    ranked = sorted(eligible, key=lambda adapter: (-values[adapter.name], adapter.trainable_parameters, adapter.name))
    return ranked[0].name if ranked else None


def rivals(adapters: Sequence[AdapterRecord]) -> Iterator[tuple[str, str]]:
    """Pairs worth testing: the base against each, each control against its method, and every two methods."""
    by_role = {(adapter.method, adapter.role): adapter.name for adapter in adapters}
    for adapter in adapters:
        yield BASE, adapter.name
    for (method, role), name in by_role.items():
        if role == "control" and (method, "candidate") in by_role:
            yield name, by_role[method, "candidate"]
    candidates = [by_role[method, "candidate"] for method in METHODS if (method, "candidate") in by_role]
    yield from combinations(candidates, 2)


def paired_tests(scores: pl.DataFrame, pairs: Sequence[tuple[str, str]], suite: str, metric: str) -> list[PairedTest]:
    """A test of each pair on the test split, with p-values as they are and Holm-corrected over all pairs.

    `difference` is the second model's mean minus the first's.
    """
    tests = [_paired_test(scores, first, second, suite, metric) for first, second in pairs]
    corrected = holm([test.p_value for test in tests])
    return [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]


def paired_scores(scores: pl.DataFrame, first: str, second: str, suite: str, metric: str, split: str) -> pl.DataFrame:
    """Columns item_id, cluster, first, second: the items on which both models have a score.

    Raises:
        ValueError: they were not scored on the same items, or there are none.
    """
    asked = scores.filter(suite=suite, metric=metric, split=split)
    one, other = (asked.filter(model=name).select("item_id", "cluster", "score") for name in (first, second))
    joined = one.join(
        other, on=["item_id", "cluster"], how="full", coalesce=True, suffix="_second", maintain_order="left"
    )
    if joined.height != one.height or joined.height != other.height:
        raise ValueError(f"{first} and {second} were not scored on the same items of {suite} {split}")
    paired = joined.rename({"score": "first", "score_second": "second"}).drop_nulls(["first", "second"])
    if paired.is_empty():
        raise ValueError(f"{first} and {second} share no scored item of {suite} {split} {metric}")
    return paired


def samples(
    scores: pl.DataFrame, items: pl.DataFrame, candidate: str, suite: str, metric: str
) -> list[Mapping[str, str]]:
    """Five prompts answered by the base and by the candidate, drawn by hash so that nobody picks them.

    They come from the test split of the first suite with generated text, one a cluster; fewer where there are fewer.
    """
    if SUITES[suite].kind != "generation":
        return []
    test = (
        items.filter(suite=suite, split="test").sort("item_hash").unique("cluster", keep="first", maintain_order=True)
    )
    answers = scores.filter(suite=suite, split="test", metric=metric)
    drawn = test.select("item_id", "prompt")
    for name, column in ((BASE, "before"), (candidate, "after")):
        own = answers.filter(model=name).select(
            "item_id", pl.col("response").alias(column), pl.col("score").alias(f"{column}_score")
        )
        drawn = drawn.join(own, on="item_id", how="inner", maintain_order="left")
    return [{name: _text(value) for name, value in row.items()} for row in drawn.head(SAMPLES).iter_rows(named=True)]


def _paired_test(scores: pl.DataFrame, first: str, second: str, suite: str, metric: str) -> PairedTest:
    paired = paired_scores(scores, first, second, suite, metric, "test")
    values = paired["first"].to_list(), paired["second"].to_list()
    return paired_test((first, second), (suite, "test", metric), *values, paired["cluster"].to_list())


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
