import io

import pytest
from PIL import Image

from synth_assets.reporting.figures import (
    MAX_THUMBNAIL_BYTES,
    benchmark_comparison,
    efficiency_comparison,
    filtering_stats,
    model_comparison,
    thumbnail,
    tradeoff_analysis,
)
from synth_assets.schemas.records import Metric


def metric(model: str, suite: str = "toy", name: str = "strict", value: float = 0.5) -> Metric:
    return Metric(
        model,
        suite,
        "test",
        name,
        value,
        400,
        value - 0.1,
        value + 0.1,
        "wilson 0.95",
        0,
        "verifier",
        "data",
        "items",
        "",
    )


def test_bars_start_at_zero_and_have_the_values_length() -> None:
    figure = benchmark_comparison([metric("base", value=0.2), metric("lora_adapter", value=0.7)])
    (panel,) = figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in panel.patches] == [(0, 0.2), (0, 0.7)]
    assert panel.get_xlim() == (0, 1)
    assert "n=400" in panel.get_title()


def test_each_suite_has_its_panel_and_each_metric_its_bars() -> None:
    chosen = [metric(m, s, n) for m in ("base", "dpo_adapter") for s, n in (("a", "x"), ("a", "y"), ("b", "acc"))]
    first, second = benchmark_comparison(chosen).axes
    assert (len(first.patches), len(second.patches)) == (4, 2)


def test_many_suites_are_rows_of_panels() -> None:
    models = ("base", "lora_adapter", "prompt_tuning_adapter", "rejection_sampling_adapter", "dpo_adapter")
    ten = [metric(model, f"suite_{n}", name) for model in models for n in range(10) for name in ("strict", "lenient")]
    wide, narrow = benchmark_comparison(ten), benchmark_comparison(ten, columns=1)
    assert [len(figure.axes) for figure in (wide, narrow)] == [10, 10]  # rows of 3, 3, 3 and 1
    assert wide.get_figwidth() < 12
    assert narrow.get_figwidth() < 5
    named = [any(tick.label1.get_visible() for tick in panel.yaxis.get_major_ticks()) for panel in wide.axes]
    assert named == [place % 3 == 0 for place in range(10)]
    assert len(thumbnail(wide)) < MAX_THUMBNAIL_BYTES


def test_benchmark_comparison_without_metrics_raises() -> None:
    with pytest.raises(ValueError, match="no metric of the test split"):
        benchmark_comparison([])


def test_tradeoff_draws_score_and_interval_for_each_known_cost() -> None:
    scores = [metric("base", value=0.2), metric("lora_adapter", value=0.7), metric("dpo_adapter", value=0.8)]
    seconds = {"lora_adapter": 40.0, "dpo_adapter": 50.0}
    memory = {"lora_adapter": 3 * 2**20, "dpo_adapter": 4 * 2**20}
    time, space = tradeoff_analysis(scores, seconds, memory, memory_kind="measured").axes
    drawn = [
        [tuple(line.get_xydata()[0]) for line in panel.lines if line.get_marker() == "o"] for panel in (time, space)
    ]
    assert drawn == [[(40.0, 0.7), (50.0, 0.8)], [(3.0, 0.7), (4.0, 0.8)]]
    assert (time.get_ylim(), time.get_xlim()[0], space.get_xlim()[0]) == ((0, 1), 0, 0)
    assert "MiB (measured)" in space.get_xlabel()
    (only,) = tradeoff_analysis(scores, seconds, {}, memory_kind="measured").axes
    assert "seconds" in only.get_xlabel()
    with pytest.raises(ValueError, match="no model has both a score and a cost"):
        tradeoff_analysis(scores, {"other": 1.0}, {}, memory_kind="measured")


def test_traits_are_bars_from_zero() -> None:
    traits = {"words": {"base": 5.0, "dpo_adapter": 7.5}, "sentences": {"base": 1.0, "dpo_adapter": 1.5}}
    words, sentences = model_comparison(traits).axes
    assert [(bar.get_x(), bar.get_width()) for bar in words.patches] == [(0, 5.0), (0, 7.5)]
    assert (words.get_xlim()[0], sentences.get_xlabel()) == (0, "sentences")
    with pytest.raises(ValueError, match="model comparison: no measurements"):
        model_comparison({})
    with pytest.raises(ValueError, match="sentences must have values of the models base, dpo_adapter"):
        model_comparison({**traits, "sentences": {"base": 1.0}})


def test_costs_are_bars_from_zero_with_readable_numbers() -> None:
    costs = {
        "parameters": {"lora_adapter": 24_313_856.0, "dpo_adapter": 1_234.5},
        "MiB": {"lora_adapter": 0.25, "dpo_adapter": 0},
    }
    parameters, on_disk = efficiency_comparison(costs).axes
    assert [(bar.get_x(), bar.get_width()) for bar in on_disk.patches] == [(0, 0.25), (0, 0)]
    assert [text.get_text().strip() for text in parameters.texts] == ["24.31 M", "1,234"]
    assert [label.get_text() for label in parameters.get_yticklabels()] == ["LoRA", "DPO"]
    with pytest.raises(ValueError, match="efficiency comparison: no measurements"):
        efficiency_comparison({})


def test_filtering_stats_draws_counts_and_scores() -> None:
    counts, spread = filtering_stats({"kept": 3, "echo": 1, "near_duplicate": 4}, [0.0, 0.51, 1.0]).axes
    assert [bar.get_width() for bar in counts.patches] == [3, 4, 1]
    assert [label.get_text() for label in counts.get_yticklabels()] == ["kept", "near duplicate", "echo"]
    assert counts.get_title() == "3 of 8 rows kept (37.5%)"
    # bins of .05: 0 in the first, .51 in the eleventh, 1 in the last
    assert [place for place, bar in enumerate(spread.patches) if bar.get_height()] == [0, 10, 19]


def test_rare_reasons_share_a_bar_and_the_thumbnail_is_small() -> None:
    figure = filtering_stats({f"reason_{n:02}": 40 - n for n in range(30)}, [])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0, *range(40, 28, -1), sum(range(11, 29))]
    assert len(thumbnail(figure)) < MAX_THUMBNAIL_BYTES


def test_filtering_stats_without_matching_scores_raises() -> None:
    with pytest.raises(ValueError, match="filtering stats: no rows"):
        filtering_stats({}, [])
    with pytest.raises(ValueError, match="expected scores of 3 kept rows, got 2"):
        filtering_stats({"kept": 3}, [0.5, 1.0])


def test_a_thumbnail_is_a_small_png() -> None:
    models = (
        "base",
        "prompt_tuning_adapter",
        "lora_adapter",
        "rejection_sampling_adapter",
        "dpo_adapter",
        "dpo_control",
    )
    rows = [metric(m, s, n) for m in models for s, n in (("a", "strict"), ("a", "lenient"), ("b", "acc"))]
    png = thumbnail(benchmark_comparison(rows))
    assert len(png) < MAX_THUMBNAIL_BYTES
    assert Image.open(io.BytesIO(png)).size[0] >= 300
    with pytest.raises(ValueError, match="expected a thumbnail of less than 100"):
        thumbnail(benchmark_comparison(rows), max_bytes=100)
