"""No number in README without the items that give it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.cli import scoreboard as scoreboard_command
from synth_assets.cli.scoreboard import (
    BEGIN,
    END,
    EVIDENCE,
    ITEMS,
    README,
    REPRODUCIBILITY_TOLERANCE,
    RESULTS,
    irreproducible_scores,
    key_lines,
    with_block,
)
from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec, score_model
from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import find_suites
from synth_assets.schemas.records import Comparison, Metric, PairedTest
from synth_assets.stages.evaluation.scoreboard import paired_tests_table, suite_table
from synth_assets.stats.intervals import estimate
from synth_assets.stats.paired import mcnemar_p

PROJECT = Path(__file__).parents[2]


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


def shown(page: Path) -> str:
    """What stands between the marks of a page."""
    return (PROJECT / page).read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def test_the_results_show_the_evidence(evidence: Comparison) -> None:
    for suite in {metric.suite for metric in evidence.metrics}:
        rows = [line for line in suite_table(evidence, suite).splitlines() if "0." in line or "1.000" in line]
        assert [row for row in rows if row.lstrip("* ") not in shown(RESULTS)] == []
    assert paired_tests_table(evidence.tests) in shown(RESULTS)


def test_readme_shows_the_suite_that_selects_the_candidate(evidence: Comparison) -> None:
    table = key_lines(evidence)  # the evidence does not say which adapter is the candidate
    assert len(table.splitlines()) == 2 + 8
    assert [line.lstrip("* ") for line in table.splitlines() if line.lstrip("* ") not in shown(README)] == []
    assert all(line.rstrip() in shown(RESULTS) for line in shown(README).splitlines())


def test_a_page_keeps_what_stands_around_its_marks() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_block(page, "new\n", "commit 1") == f"before\n{BEGIN}\n```text\nnew\n```\ncommit 1\n{END}\nafter\n"
    assert with_block(f"{END}\n{BEGIN}\n", "new\n", "commit 1") == ""


class FilledSession:
    """What the writer reads of a session, after the run that was recorded."""

    tier_name = "cpu"

    def __init__(self, home: Path, comparison: Comparison) -> None:
        self.home, self.comparison = home, comparison

    def record(self, name: str, _: type) -> Comparison | None:
        return self.comparison if name == "comparison" else None


def test_the_writer_fills_both_pages_and_keeps_the_evidence(
    evidence: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "tables").mkdir()
    items = pl.read_parquet(PROJECT / ITEMS)
    items.write_parquet(tmp_path / "tables" / "benchmark_scores.parquet")
    monkeypatch.setattr(scoreboard_command, "PROJECT", tmp_path)
    monkeypatch.setattr(scoreboard_command, "git", lambda *arguments: "abc" if "HEAD" in arguments else "")
    session: Any = FilledSession(tmp_path, replace(evidence, candidate="dpo_adapter"))
    for page in (README, RESULTS):
        (tmp_path / page).write_text(f"# Title\n\n{BEGIN}\n{END}\n\nrest\n", "utf-8")
    scoreboard_command.write_scoreboard(session)
    readme, results = ((tmp_path / page).read_text("utf-8") for page in (README, RESULTS))
    assert readme.startswith("# Title\n")
    assert readme.endswith("\nrest\n")
    assert len(readme.splitlines()) == 2 + 1 + 1 + 10 + 1 + 1 + 1 + 2  # title, marks, fences, table, origin, rest
    assert "* DPO" in readme
    assert "commit abc, machine" in readme
    assert "Paired on the same items" not in readme
    assert paired_tests_table(evidence.tests) in results
    assert pl.read_parquet(tmp_path / ITEMS).equals(items)
    assert len(json.loads((tmp_path / EVIDENCE).read_text("utf-8"))["metrics"]) == len(evidence.metrics)

    (tmp_path / README).write_text("no marks\n", "utf-8")
    with pytest.raises(ValueError, match=re.escape("README.md: expected the lines")):
        scoreboard_command.write_scoreboard(session)


def test_another_run_may_differ_within_the_tolerance() -> None:
    published = pl.read_parquet(PROJECT / ITEMS)
    dpo = (pl.col("model") == "dpo_adapter") & (pl.col("suite") == "world_instructions") & (pl.col("split") == "test")

    def flipped(count: int) -> pl.DataFrame:
        changed = dpo & (pl.col("metric") == "strict") & (pl.col("score") == 1.0)
        first = changed & (changed.cast(pl.Int32).cum_sum() <= count)
        return published.with_columns(score=pl.when(first).then(0.0).otherwise(pl.col("score")))

    assert irreproducible_scores(published, published) == []
    assert irreproducible_scores(published, flipped(6)) == []  # 6 of 680: .0088
    (line,) = irreproducible_scores(published, flipped(7))  # .0103
    strict = dpo & (pl.col("metric") == "strict")
    expected, actual = (table.filter(strict)["score"].mean() for table in (published, flipped(7)))
    assert line.startswith(
        f"dpo_adapter world_instructions test strict: expected {expected:.4f} within 0.01, got {actual:.4f}"
    )


def test_the_shipped_base_repeats_its_published_scores(tmp_path: Path) -> None:
    published = pl.read_parquet(PROJECT / ITEMS).filter(model="base", split="test", suite="world_instructions")
    inference = Inference(hardware=Hardware(tier="cpu"))
    record = inference.resolve("base")
    subject = EvaluatedModel(
        "base", "f", "w", "e", lambda: inference.generator(record), lambda: inference.load_base(record)
    )
    spec = Hardware(tier="cpu").spec(EvaluationSpec(test_items=192))
    items = item_table(find_suites(["world_instructions"])).filter(split="test")
    scores = score_model(subject, items, spec, folder=tmp_path, progress=lambda _: None)
    assert scores["item_id"].n_unique() == 192
    assert irreproducible_scores(published, scores) == []
    assert pytest.approx(0.01) == REPRODUCIBILITY_TOLERANCE
