"""No number in README without the items that give it."""

import json
from pathlib import Path

import polars as pl
import pytest

from synth_assets.commands.scoreboard import BEGIN, END, EVIDENCE, ITEMS
from synth_assets.evaluation.scoreboard import paired_tests_table, suite_table
from synth_assets.records import Comparison, Metric, PairedTest
from synth_assets.statistics import estimate, mcnemar_p

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def evidence() -> Comparison:
    stored = json.loads((PROJECT / EVIDENCE).read_text())
    metrics = [Metric(**entry) for entry in stored["metrics"]]
    return Comparison(metrics, [PairedTest(**entry) for entry in stored["tests"]], "", {})


def test_each_metric_follows_from_the_committed_items(evidence: Comparison) -> None:
    items = pl.read_parquet(PROJECT / ITEMS)
    for metric in evidence.metrics:
        same = (pl.col(name) == getattr(metric, name) for name in ("model", "suite", "split", "metric"))
        rows = items.filter(*same)
        found = estimate(rows["score"].to_list(), rows["cluster"].to_list())
        assert (metric.n, metric.value) == (found.n, pytest.approx(found.value))
        assert (metric.ci_low, metric.ci_high) == (pytest.approx(found.low), pytest.approx(found.high))


def test_each_test_follows_from_the_committed_items(evidence: Comparison) -> None:
    items = pl.read_parquet(PROJECT / ITEMS)
    for test in evidence.tests:
        chosen = items.filter(suite=test.suite, split=test.split, metric=test.metric)
        first, second = (chosen.filter(model=name).select("item_id", "score") for name in (test.first, test.second))
        both = first.join(second, on="item_id")
        only_first = both.filter(pl.col("score") > pl.col("score_right")).height
        only_second = both.filter(pl.col("score") < pl.col("score_right")).height
        assert (test.n, test.only_first, test.only_second) == (both.height, only_first, only_second)
        assert test.p_value == pytest.approx(mcnemar_p(only_first, only_second))


def test_readme_shows_the_evidence(evidence: Comparison) -> None:
    shown = (PROJECT / "README.md").read_text().partition(BEGIN)[2].partition(END)[0]
    for suite in {metric.suite for metric in evidence.metrics}:
        rows = [line for line in suite_table(evidence, suite).splitlines() if "0." in line or "1.000" in line]
        assert [row for row in rows if row.lstrip("* ") not in shown] == []
    assert paired_tests_table(evidence.tests) in shown
