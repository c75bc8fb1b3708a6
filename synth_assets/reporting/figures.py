"""Matplotlib figures without a display, small enough for event metadata."""

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

MAX_THUMBNAIL_BYTES = 30_000  # keeps a Dagster event with the base64 image below 50 kB
THUMBNAIL_DPIS = (80, 64, 48, 36)
MAX_REASONS = 12  # bars; rarer reasons share one
SCORE_BINS = 20
PALETTE = 64  # colours of a PNG: the drawn ones and their antialiased edges
COLUMNS = 3  # panels per row on a desktop; 1 on a phone
ONE_COLUMN = 4.3  # inches; at 358 pixels on a 390-pixel phone, 9-point text is 10 pixels high
INK, GRID = "#30343b", "#d9dce1"
COLOURS = ("#3b6ea5", "#c8702a", "#4f8f5b", "#8a5a9e", "#a04b4b", "#6b7280")  # distinct in greyscale as well
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
    """Draw a panel for each suite, with a bar and an interval for each model and metric.

    Raises:
        ValueError: there is no metric of this split.
    """
    shown = [metric for metric in metrics if metric.split == split]
    if not shown:
        raise ValueError(f"benchmark comparison: no metric of the {split} split")
    suites = list(dict.fromkeys(metric.suite for metric in shown))
    models = list(dict.fromkeys(metric.model for metric in shown))
    figure, panels = blank_panels(len(suites), height=0.9 + 0.42 * len(models), columns=columns)
    for index, (panel, suite) in enumerate(zip(panels, suites, strict=True)):
        _draw_suite(panel, [metric for metric in shown if metric.suite == suite], models)
        panel.tick_params(labelleft=index % columns == 0)
    return figure


def filtering_stats(fates: Mapping[str, int], scores: Sequence[float], *, columns: int = COLUMNS) -> "Figure":
    """Draw the number of kept rows and of rejected rows by reason, and the score distribution of the kept rows.

    Args:
        fates: "kept" or a reason -> number of rows.
        scores: scores of the kept rows, 0..1.
        columns: panels per row.

    Raises:
        ValueError: there are no rows, or not one score per kept row.
    """
    total, kept = sum(fates.values()), fates.get("kept", 0)
    if not total:
        raise ValueError("filtering stats: no rows")
    if len(scores) != kept:
        raise ValueError(f"filtering stats: expected scores of {kept} kept rows, got {len(scores)}")
    reasons = sorted(((n, name) for name, n in fates.items() if name != "kept"), reverse=True)
    others = sum(number for number, _ in reasons[MAX_REASONS:])
    bars = [
        ("kept", kept),
        *((name, n) for n, name in reasons[:MAX_REASONS]),
        *([("others", others)] if others else []),
    ]
    figure, (counts, spread) = blank_panels(2, height=1.2 + 0.22 * max(len(bars), 5), columns=columns)
    colours = [COLOURS[0] if name == "kept" else COLOURS[1] for name, _ in bars]
    container = counts.barh(range(len(bars)), [number for _, number in bars], color=colours)
    counts.bar_label(container, [f" {number:,}" for _, number in bars], fontsize=8)
    counts.set_yticks(range(len(bars)), [name.replace("_", " ") for name, _ in bars], fontsize=8)
    counts.set_ylim(len(bars) - 0.5, -0.5)
    counts.margins(x=0.18)
    counts.grid(visible=False, axis="y")
    counts.set_title(f"{kept:,} of {total:,} rows kept ({kept / total:.1%})", fontsize=9)
    counts.set_xlabel("rows, by first reason of rejection", fontsize=8)
    spread.hist(scores, bins=SCORE_BINS, range=(0, 1), color=COLOURS[0])
    spread.set_xlim(0, 1)
    spread.set_title(f"score of the rows kept, n={kept:,}", fontsize=9)
    spread.set_xlabel("0: at a limit of the filter, 1: far from all limits", fontsize=8)
    return figure


def tradeoff_analysis(
    scores: Sequence[Metric],
    seconds: Mapping[str, float],
    memory_bytes: Mapping[str, float],
    *,
    memory_kind: str,
    columns: int = COLUMNS,
) -> "Figure":
    """Draw the score of each model against its training time and against its peak memory.

    Args:
        scores: one metric per model; a model without a cost, such as the base, is drawn as a horizontal line.
        seconds: model -> training time; empty: no panel.
        memory_bytes: model -> peak memory; empty: no panel.
        memory_kind: "measured" or "derived", for the axis label.
        columns: panels per row.

    Raises:
        ValueError: there is no score, or no scored model has a cost.
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
        raise ValueError("tradeoff analysis: no model has both a score and a cost")
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
    """Draw a panel for each trait, with a bar for each model.

    Args:
        traits: trait with its unit -> model -> value; all have the same models.
        columns: panels per row.

    Raises:
        ValueError: there is no trait, or a trait lacks a model.
    """
    return _bars(traits, "model comparison", columns)


def efficiency_comparison(costs: Mapping[str, Mapping[str, float]], *, columns: int = COLUMNS) -> "Figure":
    """Draw a panel for each cost, with a bar for each method.

    Args:
        costs: cost with its unit -> method -> value; all have the same methods.
        columns: panels per row.

    Raises:
        ValueError: there is no cost, or a cost lacks a method.
    """
    return _bars(costs, "efficiency comparison", columns)


def scatter_map(groups: Mapping[str, Any], axes: tuple[str, str], title: str) -> "Figure":
    """Draw points in two dimensions, a colour for each group; groups beyond the number of COLOURS share grey.

    Args:
        groups: name -> (points, 2) coordinates.
        axes: labels of x and y.
        title: of the panel.
    """
    figure, (panel,) = blank_panels(1, height=3.6)
    names = list(groups)
    for number, name in enumerate(names):
        is_named = number < len(COLOURS) - (len(names) > len(COLOURS))
        colour = COLOURS[number] if is_named else GRID
        label = name if is_named else None
        panel.scatter(groups[name][:, 0], groups[name][:, 1], s=6, linewidths=0, alpha=0.7, color=colour, label=label)
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(axes[0], fontsize=8)
    panel.set_ylabel(axes[1], fontsize=8)
    if len(names) > 1:
        panel.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16), markerscale=2)
    return figure


def thumbnail(figure: "Figure", max_bytes: int = MAX_THUMBNAIL_BYTES) -> bytes:
    """Render a PNG of fewer than `max_bytes` bytes, at the highest resolution that fits.

    Raises:
        ValueError: it does not fit even at the lowest resolution.
    """
    for dpi in THUMBNAIL_DPIS:
        image = png(figure, dpi)
        if len(image) < max_bytes:
            return image
    raise ValueError(f"expected a thumbnail of less than {max_bytes} bytes, got {len(image)} at {dpi} dpi")


def png(figure: "Figure", dpi: int = 120) -> bytes:
    """Render a PNG with a reduced palette, about a third of the full-colour size."""
    from PIL import Image

    image_data, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(image_data, format="png", dpi=dpi)
    image_data.seek(0)
    Image.open(image_data).convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()


def markdown_image(title: str, figure: "Figure") -> str:
    """Render the thumbnail as a Markdown image with inline data."""
    return f"![{title}](data:image/png;base64,{b64encode(thumbnail(figure)).decode()})"


def _bars(values: Mapping[str, Mapping[str, float]], what: str, columns: int) -> "Figure":
    models = list(next(iter(values.values()), ()))
    if not models:
        raise ValueError(f"{what}: no measurements")
    if incomplete := [name for name, by_model in values.items() if list(by_model) != models]:
        raise ValueError(f"{what}: {', '.join(incomplete)} must have values of the models {', '.join(models)}")
    figure, panels = blank_panels(len(values), height=0.9 + 0.3 * len(models), columns=columns)
    for index, (panel, (name, by_model)) in enumerate(zip(panels, values.items(), strict=True)):
        container = panel.barh(range(len(models)), list(by_model.values()), color=COLOURS[0])
        panel.bar_label(container, [f" {_number(value)}" for value in by_model.values()], fontsize=8)
        panel.set_yticks(range(len(models)), [display_name(model) for model in models])
        panel.set_ylim(len(models) - 0.5, -0.5)
        panel.set_xlim(0, 1.3 * max(by_model.values()) or 1)
        panel.xaxis.set_major_locator(_few_ticks())
        panel.xaxis.set_major_formatter(lambda value, _: _number(value))
        panel.grid(visible=False, axis="y")
        panel.set_xlabel(name, fontsize=8)
        panel.tick_params(labelleft=index % columns == 0)
    return figure


def _number(value: float) -> str:
    """Format a number with at most four significant digits."""
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
        series = [metric for metric in metrics if metric.metric == name]
        positions = [models.index(metric.model) + (number - (len(names) - 1) / 2) * height for metric in series]
        values = [metric.value for metric in series]
        errors = [[m.value - m.ci_low for m in series], [m.ci_high - m.value for m in series]]
        panel.barh(positions, values, height * 0.9, color=COLOURS[number % len(COLOURS)], label=name)
        panel.errorbar(values, positions, xerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
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
    distinct = sorted(set(counts))
    return str(distinct[0]) if len(distinct) == 1 else f"{distinct[0]} to {distinct[-1]}"


def blank_panels(count: int, *, height: float, columns: int = COLUMNS) -> "tuple[Figure, list[Axes]]":
    """Return a figure with `count` empty panels, `columns` per row, each `height` inches high."""
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
