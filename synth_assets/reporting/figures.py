"""Figures without a display: every panel drawn from data, small enough for an event's metadata."""

import io
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.records import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

MAX_THUMBNAIL_BYTES = 30_000  # a base64 image of this size keeps an event under Dagster's comfortable 50 kB
THUMBNAIL_DPIS = (80, 64, 48, 36)
MAX_REASONS = 12  # bars of a figure; rarer reasons are one bar
SCORE_BINS = 20
PALETTE = 64  # colours of a picture: the few that are drawn, and their edges
COLUMNS = 3  # of panels beside each other on a desk; 1 on a phone
ONE_COLUMN = 4.3  # inches; shown 358 pixels wide on a phone of 390, text of 9 points is 10 pixels high
INK, GRID = "#30343b", "#d9dce1"
COLOURS = ("#3b6ea5", "#c8702a", "#4f8f5b", "#8a5a9e", "#a04b4b", "#6b7280")  # distinct in grey as well
STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
}


def benchmark_comparison(metrics: Sequence[Metric], *, split: str = "test", columns: int = COLUMNS) -> "Figure":
    """A panel for each suite: each model's value of each metric as a bar from 0, with its interval.

    Raises:
        ValueError: there is no metric of this split.
    """
    chosen = [metric for metric in metrics if metric.split == split]
    if not chosen:
        raise ValueError(f"benchmark comparison: there is no metric of the {split} split to draw")
    suites = list(dict.fromkeys(metric.suite for metric in chosen))
    models = list(dict.fromkeys(metric.model for metric in chosen))
    figure, panels = blank_panels(len(suites), height=0.9 + 0.42 * len(models), columns=columns)
    for place, (panel, suite) in enumerate(zip(panels, suites, strict=True)):
        _draw_suite(panel, [metric for metric in chosen if metric.suite == suite], models)
        panel.tick_params(labelleft=place % columns == 0)
    return figure


def filtering_stats(fates: Mapping[str, int], scores: Sequence[float], *, columns: int = COLUMNS) -> "Figure":
    """What became of the judged rows: a bar of their number for "kept" and each reason; and the scores of the kept.

    Args:
        fates: "kept" or a reason to its number of rows.
        scores: of the kept rows, 0..1.
        columns: of panels.

    Raises:
        ValueError: nothing was judged, or the scores are not those of the kept rows.
    """
    judged, kept = sum(fates.values()), fates.get("kept", 0)
    if not judged:
        raise ValueError("filtering stats: no row was judged, there is nothing to draw")
    if len(scores) != kept:
        raise ValueError(f"filtering stats: {kept} rows were kept, and there are scores of {len(scores)}")
    reasons = sorted(((n, name) for name, n in fates.items() if name != "kept"), reverse=True)
    others = sum(number for number, _ in reasons[MAX_REASONS:])
    bars = [
        ("kept", kept),
        *((name, n) for n, name in reasons[:MAX_REASONS]),
        *([("others", others)] if others else []),
    ]
    figure, (counts, spread) = blank_panels(2, height=1.2 + 0.22 * max(len(bars), 5), columns=columns)
    colours = [COLOURS[0] if name == "kept" else COLOURS[1] for name, _ in bars]
    drawn = counts.barh(range(len(bars)), [number for _, number in bars], color=colours)
    counts.bar_label(drawn, [f" {number:,}" for _, number in bars], fontsize=8)
    counts.set_yticks(range(len(bars)), [name.replace("_", " ") for name, _ in bars], fontsize=8)
    counts.set_ylim(len(bars) - 0.5, -0.5)
    counts.margins(x=0.18)
    counts.grid(visible=False, axis="y")
    counts.set_title(f"{kept:,} of {judged:,} rows kept ({kept / judged:.1%})", fontsize=9)
    counts.set_xlabel("rows, by the first reason against them", fontsize=8)
    spread.hist(scores, bins=SCORE_BINS, range=(0, 1), color=COLOURS[0])
    spread.set_xlim(0, 1)
    spread.set_title(f"score of the rows kept, n={kept:,}", fontsize=9)
    spread.set_xlabel("0: at a limit of the filter, 1: far from all", fontsize=8)
    return figure


def tradeoff_analysis(
    scores: Sequence[Metric],
    seconds: Mapping[str, float],
    memory_bytes: Mapping[str, float],
    *,
    memory_kind: str,
    columns: int = COLUMNS,
) -> "Figure":
    """What a score costs: each model's value with its interval over its training time, and over its peak memory.

    Args:
        scores: one metric of each model; those without a cost, as the base, are a level line.
        seconds: model to its training time; empty: no such panel.
        memory_bytes: model to its peak memory; empty: no such panel.
        memory_kind: "measured" or "derived"; names the axis.
        columns: of panels.

    Raises:
        ValueError: there is no score, or no model of a score has a cost.
    """
    axes = [
        ("training seconds from the base model", {m.model: seconds[m.model] for m in scores if m.model in seconds}),
        (
            f"peak memory of training in MiB ({memory_kind})",
            {m.model: memory_bytes[m.model] / 2**20 for m in scores if m.model in memory_bytes},
        ),
    ]
    axes = [(name, costs) for name, costs in axes if costs]
    if not axes:
        raise ValueError("tradeoff analysis: no model has a score and a training time or a peak memory")
    figure, panels = blank_panels(len(axes), height=3.4, columns=columns)
    for panel, (name, costs) in zip(panels, axes, strict=True):
        for number, metric in enumerate(scores):
            _draw_cost(panel, metric, costs.get(metric.model), COLOURS[number % len(COLOURS)])
        panel.set_ylim(0, 1)
        panel.set_xlim(0, 1.1 * max(costs.values()) or 1)
        panel.set_xlabel(name, fontsize=8)
        panel.set_ylabel(f"{scores[0].suite.replace('_', ' ')}, {scores[0].metric}, {scores[0].interval}", fontsize=8)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, ncols=min(columns + 1, 3), loc="outside lower center")
    return figure


def model_comparison(traits: Mapping[str, Mapping[str, float]], *, columns: int = COLUMNS) -> "Figure":
    """How models differ beside their scores: a panel for each trait, a bar from 0 for each model.

    Args:
        traits: name of the trait, with its unit, to model to value; all have the same models.
        columns: of panels.

    Raises:
        ValueError: there is no trait, or one that was not measured on every model.
    """
    return _bars(traits, "model comparison", columns)


def efficiency_comparison(costs: Mapping[str, Mapping[str, float]], *, columns: int = COLUMNS) -> "Figure":
    """What methods take: a panel for each cost, a bar from 0 for each method.

    Args:
        costs: name of the cost, with its unit, to method to value; all have the same methods.
        columns: of panels.

    Raises:
        ValueError: there is no cost, or one that was not measured on every method.
    """
    return _bars(costs, "efficiency comparison", columns)


def thumbnail(figure: "Figure", max_bytes: int = MAX_THUMBNAIL_BYTES) -> bytes:
    """The figure as PNG of fewer than `max_bytes`, at the highest resolution that fits.

    Raises:
        ValueError: it does not fit even at the lowest.
    """
    for dpi in THUMBNAIL_DPIS:
        image = png(figure, dpi)
        if len(image) < max_bytes:
            return image
    raise ValueError(f"the figure takes {len(image)} bytes at {dpi} dpi, more than {max_bytes}")


def png(figure: "Figure", dpi: int = 120) -> bytes:
    """The figure for a page, in so few colours that it takes about a third of the bytes."""
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    drawn.seek(0)
    Image.open(drawn).convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()


def markdown_image(title: str, figure: "Figure") -> str:
    """The figure's thumbnail as an image in Markdown that needs no file."""
    return f"![{title}](data:image/png;base64,{b64encode(thumbnail(figure)).decode()})"


def _bars(values: Mapping[str, Mapping[str, float]], what: str, columns: int) -> "Figure":
    models = list(next(iter(values.values()), ()))
    if not models:
        raise ValueError(f"{what}: nothing of any model was measured")
    if lacking := [name for name, by_model in values.items() if list(by_model) != models]:
        raise ValueError(f"{what}: {', '.join(lacking)} was not measured on the models {', '.join(models)}")
    figure, panels = blank_panels(len(values), height=0.9 + 0.3 * len(models), columns=columns)
    for place, (panel, (name, by_model)) in enumerate(zip(panels, values.items(), strict=True)):
        drawn = panel.barh(range(len(models)), list(by_model.values()), color=COLOURS[0])
        panel.bar_label(drawn, [f" {_number(value)}" for value in by_model.values()], fontsize=8)
        panel.set_yticks(range(len(models)), [display_name(model) for model in models])
        panel.set_ylim(len(models) - 0.5, -0.5)
        panel.set_xlim(0, 1.3 * max(by_model.values()) or 1)
        panel.xaxis.set_major_locator(_few_ticks())
        panel.xaxis.set_major_formatter(lambda value, _: _number(value))
        panel.grid(visible=False, axis="y")
        panel.set_xlabel(name, fontsize=8)
        panel.tick_params(labelleft=place % columns == 0)
    return figure


def _number(value: float) -> str:
    """At most four digits that count."""
    if value >= 1e6:
        return f"{value / 1e6:.4g} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _few_ticks() -> "Locator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def _draw_suite(panel: "Axes", metrics: Sequence[Metric], models: Sequence[str]) -> None:
    names = list(dict.fromkeys(metric.metric for metric in metrics))
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        chosen = [metric for metric in metrics if metric.metric == name]
        places = [models.index(metric.model) + (number - (len(names) - 1) / 2) * height for metric in chosen]
        values = [metric.value for metric in chosen]
        errors = [[m.value - m.ci_low for m in chosen], [m.ci_high - m.value for m in chosen]]
        panel.barh(places, values, height * 0.9, color=COLOURS[number % len(COLOURS)], label=name)
        panel.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    panel.set_yticks(range(len(models)), [display_name(model) for model in models])
    panel.set_ylim(len(models) - 0.5, -0.5)
    panel.set_xlim(0, 1)
    panel.grid(visible=False, axis="y")
    panel.set_title(
        f"{metrics[0].suite.replace('_', ' ')}, {metrics[0].split} n={_range(m.n for m in metrics)}", fontsize=9
    )
    panel.set_xlabel(f"{' and '.join(names)}, {metrics[0].interval} interval", fontsize=8)
    if len(names) > 1:
        panel.legend(fontsize=8, frameon=False, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _draw_cost(panel: "Axes", metric: Metric, cost: float | None, colour: str) -> None:
    name = display_name(metric.model)
    if cost is None:
        panel.axhline(metric.value, color=colour, linestyle="--", linewidth=1, label=f"{name} (no training)")
        return
    error = [[metric.value - metric.ci_low], [metric.ci_high - metric.value]]
    panel.errorbar([cost], [metric.value], yerr=error, fmt="o", color=colour, ecolor=INK, capsize=2, label=name)


def _range(counts: Iterable[int]) -> str:
    different = sorted(set(counts))
    return str(different[0]) if len(different) == 1 else f"{different[0]} to {different[-1]}"


def blank_panels(count: int, *, height: float, columns: int = COLUMNS) -> "tuple[Figure, list[Axes]]":
    """A figure of `count` empty panels, `columns` beside each other, each `height` inches high."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    with mpl.rc_context(rc=STYLE):
        figure = Figure(
            figsize=(1.6 + 3.2 * columns if columns > 1 else ONE_COLUMN, height * rows), layout="constrained"
        )
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count]
