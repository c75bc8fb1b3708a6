"""Figures without a display: every panel drawn from data, small enough for an event's metadata."""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synth_assets.records import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_THUMBNAIL_BYTES = 30_000  # a base64 image of this size keeps an event under Dagster's comfortable 50 kB
THUMBNAIL_DPIS = (80, 64, 48, 36)
MAX_REASONS = 12  # bars of a figure; rarer reasons are one bar
SCORE_BINS = 20
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


def benchmark_comparison(metrics: Sequence[Metric], *, split: str = "test") -> "Figure":
    """A panel for each suite: each model's value of each metric as a bar from 0, with its interval.

    Raises:
        ValueError: there is no metric of this split.
    """
    shown = [metric for metric in metrics if metric.split == split]
    if not shown:
        raise ValueError(f"benchmark comparison: there is no metric of the {split} split to draw")
    suites = list(dict.fromkeys(metric.suite for metric in shown))
    models = list(dict.fromkeys(metric.model for metric in shown))
    figure, panels = _panels(len(suites), height=0.9 + 0.42 * len(models))
    for panel, suite in zip(panels, suites, strict=True):
        _draw_suite(panel, [metric for metric in shown if metric.suite == suite], models)
    for panel in panels[1:]:
        panel.tick_params(labelleft=False)
    return figure


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, float]]], *, value: str, step: str = "step") -> "Figure":
    """One line for each run of `value` over `step`; points that lack it are left out.

    Args:
        curves: name of the run to its log entries.
        value: such as "loss"; names the axis.
        step: the entries' key for the horizontal axis.

    Raises:
        ValueError: no run has a point.
    """
    lines = {
        name: [(entry[step], entry[value]) for entry in entries if step in entry and value in entry]
        for name, entries in curves.items()
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        raise ValueError(f"learning curves: no run of {', '.join(curves) or 'none'} has {value} over {step}")
    figure, (panel,) = _panels(1, height=2.8)
    for number, (name, points) in enumerate(lines.items()):
        steps, values = zip(*sorted(points), strict=True)
        marker = "o" if len(points) < 3 else ""
        panel.plot(steps, values, color=COLOURS[number % len(COLOURS)], marker=marker, markersize=4, label=name)
    panel.set_xlabel(step)
    panel.set_ylabel(value)
    panel.legend(fontsize=8, frameon=False)
    return figure


def filtering_stats(fates: Mapping[str, int], scores: Sequence[float]) -> "Figure":
    """What became of the judged rows: a bar of their number for "kept" and each reason; and the scores of the kept.

    Args:
        fates: "kept" or a reason to its number of rows.
        scores: of the kept rows, 0..1.

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
    figure, (counts, spread) = _panels(2, height=1.2 + 0.22 * max(len(bars), 5))
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


def thumbnail(figure: "Figure", max_bytes: int = MAX_THUMBNAIL_BYTES) -> bytes:
    """The figure as PNG of fewer than `max_bytes`, at the highest resolution that fits.

    Raises:
        ValueError: it does not fit even at the lowest.
    """
    for dpi in THUMBNAIL_DPIS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if len(buffer.getvalue()) < max_bytes:
            return buffer.getvalue()
    raise ValueError(f"the figure takes {len(buffer.getvalue())} bytes at {dpi} dpi, more than {max_bytes}")


def markdown_image(title: str, figure: "Figure") -> str:
    """The figure's thumbnail as an image in Markdown that needs no file."""
    return f"![{title}](data:image/png;base64,{b64encode(thumbnail(figure)).decode()})"


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
    panel.set_yticks(range(len(models)), [model.replace("_", " ").removesuffix(" adapter") for model in models])
    panel.set_ylim(len(models) - 0.5, -0.5)
    panel.set_xlim(0, 1)
    panel.grid(visible=False, axis="y")
    panel.set_title(
        f"{metrics[0].suite.replace('_', ' ')}, {metrics[0].split} n={_range(m.n for m in metrics)}", fontsize=9
    )
    panel.set_xlabel(f"{' and '.join(names)}, {metrics[0].interval} interval", fontsize=8)
    if len(names) > 1:
        panel.legend(fontsize=8, frameon=False, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _range(counts: Iterable[int]) -> str:
    different = sorted(set(counts))
    return str(different[0]) if len(different) == 1 else f"{different[0]} to {different[-1]}"


def _panels(count: int, *, height: float) -> "tuple[Figure, list[Axes]]":
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(rc=STYLE):
        figure = Figure(figsize=(1.6 + 3.2 * count, height), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(panels)
