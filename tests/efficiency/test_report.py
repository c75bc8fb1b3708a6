from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.schemas.serialization import from_json
from synth_assets.stages.efficiency.figures import answer_times, factor_comparison, figures, pareto_frontier
from synth_assets.stages.efficiency.findings import findings
from synth_assets.stages.efficiency.frontier import Frontier, compare
from synth_assets.stages.efficiency.latencies import LATENCIES
from synth_assets.stages.efficiency.report import cell_table, variant_table, write_study
from synth_assets.stages.efficiency.variants import Variant

BASIS = "b" * 16
NAMES = [f"r{rank}-all-none-s{seed}" for rank in (8, 4, 16) for seed in (42, 43, 44)]


@pytest.fixture
def study(ranks: dict[str, Variant], timed: pl.DataFrame) -> Frontier:
    found = compare(ranks, [*NAMES, "r64-all-none-s42"], BASIS)
    return replace(found, findings=findings(found, timed))


def test_a_figure_for_each_sweep_with_data_and_none_without(study: Frontier, timed: pl.DataFrame) -> None:
    assert list(figures(study, timed)) == ["rank_comparison", "pareto_test_loss", "pareto_score", "answer_times"]
    assert list(figures(compare({}, NAMES, BASIS), LATENCIES.to_frame())) == []


def test_panels_have_a_mark_for_each_level_and_its_interval(study: Frontier) -> None:
    figure = factor_comparison(study, "rank")
    loss = figure.axes[0]
    assert [tick.get_text() for tick in loss.get_xticklabels()] == ["4", "8", "16"]
    middles = [float(line.get_ydata()[0]) for line in loss.lines if line.get_marker() == "o"]  # pyright: ignore[reportIndexIssue, reportArgumentType]
    assert middles == pytest.approx([0.5, 0.5, 0.4])
    assert len(loss.collections) == 3  # an error bar each
    assert "n=3" in loss.get_ylabel()


def test_one_seed_draws_no_interval(ranks: dict[str, Variant]) -> None:
    alone = compare(ranks, [name for name in NAMES if name.endswith("42")], BASIS)
    assert len(factor_comparison(alone, "rank").axes[0].collections) == 0


def test_the_frontiers_line_joins_its_cells(study: Frontier) -> None:
    panel = pareto_frontier(study, "test_loss").axes[0]
    line = panel.lines[0]
    assert list(line.get_xdata()) == [500.0, 2_000.0]  # pyright: ignore[reportArgumentType]
    assert list(line.get_ydata()) == pytest.approx([0.5, 0.4])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("draw", "names"),
    [
        (lambda study: factor_comparison(study, "quantisation"), "at least 2 measured levels, got 1"),
        (lambda _: answer_times(LATENCIES.to_frame()), "nothing was timed"),
        (lambda _: pareto_frontier(compare({}, NAMES, BASIS), "score"), "no cell"),
    ],
)
def test_a_figure_without_data_is_an_error(study: Frontier, draw: Callable[[Frontier], object], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        draw(study)


def test_the_report_holds_every_number(
    study: Frontier, ranks: dict[str, Variant], timed: pl.DataFrame, tmp_path: Path
) -> None:
    links = {run: f"http://mlflow/{number}" for number, run in enumerate(study.runs.values())}
    names = write_study(study, ranks, timed, links, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert from_json(Frontier, (tmp_path / "study.json").read_text("utf-8")) == study
    rows = pl.read_csv(tmp_path / "variants.csv")
    assert rows["name"].to_list() == study.wanted
    assert rows.filter(name="r64-all-none-s42")["left_out"].to_list() == ["never materialised"]
    assert rows.filter(name="r16-all-none-s43")["test_loss"].to_list() == [0.41]
    cells = pl.read_csv(tmp_path / "cells.csv")
    assert cells.filter(cell="r16-all-none", metric="test_loss")["mean"].to_list() == pytest.approx([0.4])
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "never materialised" in page
    assert 'href="http://mlflow/0"' in page
    assert "![rank: means over seeds](rank_comparison.png)" in (tmp_path / "report.md").read_text("utf-8")


def test_equal_studies_are_equal_files(
    study: Frontier, ranks: dict[str, Variant], timed: pl.DataFrame, tmp_path: Path
) -> None:
    for folder in ("one", "other"):
        write_study(study, ranks, timed, {}, tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_a_variant_of_other_data_shows_no_number(ranks: dict[str, Variant]) -> None:
    ranks["r8-all-none-s42"] = replace(ranks["r8-all-none-s42"], basis="o" * 16)
    study = compare(ranks, NAMES, BASIS)
    row = variant_table(study, ranks).filter(name="r8-all-none-s42").row(0, named=True)
    assert row["test_loss"] is None
    assert "other data" in row["left_out"]
    assert cell_table(compare({}, NAMES, BASIS)).is_empty()
