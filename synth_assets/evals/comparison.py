"""All models side by side on the same items: who is the candidate, and which differences are real."""

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

SAMPLES = 5


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
    candidate = choose_candidate(validation_values(found, scores, scored, suite, metric), scored)
    pairs = [] if candidate is None else list(rivals(scored))
    return Comparison(
        metrics=list(found),
        tests=paired_tests(scores, pairs, suite, metric),
        candidate=candidate or "",
        failures=failures,
        samples=samples(scores, items, candidate, suite, metric) if candidate else [],
        unanswerable=count_unanswerable(scores),
    )


def primary(scores: pl.DataFrame) -> tuple[str, str]:
    """The suite and metric that decide: the table's first suite and that suite's first metric."""
    suite = str(scores["suite"][0])
    return suite, SUITES[suite].metrics[0]


def validation_values(
    found: Sequence[Metric], scores: pl.DataFrame, adapters: Sequence[AdapterRecord], suite: str, metric: str
) -> dict[str, float]:
    """Return the validation value of each model, on the same items for all that may become the candidate.

    Where an adapter cannot take some items, all candidates are compared without them: nobody gains by not answering.
    An adapter that cannot take more than MAX_LEFT_OUT_SHARE of them has no value, unless that is true of all.

    Raises:
        ValueError: an adapter that may become the candidate was not asked.
    """
    split = "validation"
    values = {m.model: m.value for m in found if (m.suite, m.metric, m.split) == (suite, metric, split)}
    asked = scores.filter(suite=suite, metric=metric, split=split)
    eligible = [adapter.name for adapter in adapters if adapter.role == "candidate"]
    own = asked.filter(pl.col("model").is_in(eligible))
    if unasked := [name for name in eligible if name not in set(own["model"])]:
        raise ValueError(f"no validation items of {suite} {metric} to choose a candidate by for {', '.join(unasked)}")
    if not own["finish_reason"].is_in(UNANSWERABLE).any():
        return values
    left_out = shares(count_unanswerable(own))
    able = [name for name in eligible if left_out.get((name, suite, split), 0.0) <= MAX_LEFT_OUT_SHARE]
    own = own.filter(pl.col("model").is_in(able or eligible)).drop_nulls("score")
    counts = own.group_by("item_id").agg(pl.col("model").n_unique().alias("models"))
    common = own.join(counts.filter(models=own["model"].n_unique()), on="item_id", how="semi")
    means = dict(common.group_by("model").agg(pl.col("score").mean()).iter_rows())
    return {name: value for name, value in values.items() if name not in eligible} | means


def choose_candidate(values: Mapping[str, float], adapters: Sequence[AdapterRecord]) -> str | None:
    """The adapter, controls excepted, with the highest validation value; of equals the one with fewer parameters.

    None where every adapter is a control, failed, or has no value because it could take no item.
    """
    able = [adapter for adapter in adapters if adapter.role == "candidate" and adapter.name in values]
    ranked = sorted(able, key=lambda adapter: (-values[adapter.name], adapter.trainable_parameters, adapter.name))
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

    `difference` is the second model's mean minus the first's. Items that one of the two cannot take are left out for
    both; a pair that shares no item has no test.
    """
    found = (_paired_test(scores, first, second, suite, metric) for first, second in pairs)
    tests = [test for test in found if test]
    corrected = holm([test.p_value for test in tests])
    return [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]


def paired_scores(scores: pl.DataFrame, first: str, second: str, suite: str, metric: str, split: str) -> pl.DataFrame:
    """Columns item_id, cluster, first, second: the items on which both models have a score.

    Raises:
        ValueError: they were not scored on the same items, or there are none.
    """
    paired = _joined(scores, first, second, suite, metric, split).drop_nulls(["first", "second"])
    if paired.is_empty():
        raise ValueError(f"{first} and {second} share no scored item of {suite} {split} {metric}")
    return paired.select("item_id", "cluster", "first", "second")


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
    answers = answered(scores.filter(suite=suite, split="test", metric=metric))
    drawn = test.select("item_id", "prompt")
    for name, column in ((BASE, "before"), (candidate, "after")):
        own = answers.filter(model=name).select(
            "item_id", pl.col("response").alias(column), pl.col("score").alias(f"{column}_score")
        )
        drawn = drawn.join(own, on="item_id", how="inner", maintain_order="left")
    return [{name: _text(value) for name, value in row.items()} for row in drawn.head(SAMPLES).iter_rows(named=True)]


def _joined(scores: pl.DataFrame, first: str, second: str, suite: str, metric: str, split: str) -> pl.DataFrame:
    """Columns item_id, cluster, first, second, left_out: all items that the two were asked.

    Raises:
        ValueError: they were not asked the same.
    """
    asked = scores.filter(suite=suite, metric=metric, split=split).with_columns(
        pl.col("finish_reason").is_in(UNANSWERABLE).fill_null(value=False).alias("left_out")
    )
    one, other = (
        asked.filter(model=name).select("item_id", "cluster", "score", "left_out") for name in (first, second)
    )
    joined = one.join(
        other, on=["item_id", "cluster"], how="full", coalesce=True, suffix="_second", maintain_order="left"
    )
    if joined.height != one.height or joined.height != other.height:
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
