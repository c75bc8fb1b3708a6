"""Figures of a study: measured means with their intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.reporting.figures import COLOURS, INK, blank_panels
from synth_assets.stages.efficiency.frontier import COSTS, Frontier, SeedMean, levels
from synth_assets.stages.efficiency.latencies import PERCENTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "test_loss": "test loss, nats a token",
    "score": "score",
    "tokens_per_s": "training tokens/s",
    "trainable_parameters": "trainable parameters",
    "peak_memory_bytes": "peak memory of training, MiB",
    "seconds": "training seconds of the wall",
}
SCALE = {"peak_memory_bytes": 2**-20}
BY_FACTOR = {
    "rank": ("test_loss", "score", "seconds"),
    "modules": ("test_loss", "score", "trainable_parameters"),
    "quantisation": ("test_loss", "score", "peak_memory_bytes"),
}


def factor_comparison(study: Frontier, factor: str) -> "Figure":
    """Draw a panel for each metric of BY_FACTOR: the levels of one sweep, each mean with its interval.

    Raises:
        ValueError: fewer than two levels were measured.
    """
    swept = levels(factor, study.cells)
    if len(swept) < 2:
        raise ValueError(f"{factor} comparison needs at least 2 measured levels, got {len(swept)}")
    figure, panels = blank_panels(len(BY_FACTOR[factor]), height=2.8)
    for panel, metric in zip(panels, BY_FACTOR[factor], strict=True):
        for position, cell in enumerate(swept.values()):
            _draw(panel, position, _mean_of_cell(study, cell, metric), COLOURS[0])
        panel.set_xticks(range(len(swept)), list(swept))
        panel.set_xlim(-0.5, len(swept) - 0.5)
        panel.set_xlabel(factor)
        panel.set_ylabel(_axis(study, metric), fontsize=8)
    return figure


def pareto_frontier(study: Frontier, quality: str) -> "Figure":
    """Draw a panel for each cost: every cell's mean quality over it, and the frontier of the means as a line.

    Raises:
        ValueError: no cell was measured.
    """
    if not study.cells:
        raise ValueError("pareto frontier: no cell was measured")
    figure, panels = blank_panels(len(COSTS), height=3.6)
    for panel, cost in zip(panels, COSTS, strict=True):
        frontier = study.pareto[f"{quality} against {cost}"]
        line = [
            (_scaled(_mean_of_cell(study, cell, cost)).mean, _mean_of_cell(study, cell, quality).mean)
            for cell in frontier
        ]
        panel.plot(*zip(*line, strict=True), color=INK, linewidth=1, zorder=1)
        for number, cell in enumerate(study.cells):
            colour, marker = COLOURS[number % len(COLOURS)], "os^D"[number // len(COLOURS) % 4]
            position = _scaled(_mean_of_cell(study, cell, cost)).mean
            _draw(panel, position, _mean_of_cell(study, cell, quality), colour, label=cell, marker=marker)
        if cost == "trainable_parameters":
            _logarithmic(panel)
        panel.set_xlabel(_axis(study, cost), fontsize=8)
        panel.set_ylabel(_axis(study, quality), fontsize=8)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, ncols=4, loc="outside lower center")
    return figure


def answer_times(timed: pl.DataFrame) -> "Figure":
    """Draw percentiles of the time of one answer for each cell.

    Raises:
        ValueError: nothing was timed.
    """
    if timed.is_empty():
        raise ValueError("answer times: nothing was timed")
    figure, (times, speed) = blank_panels(2, height=1.2 + 0.25 * timed.height)
    cells = timed["cell"].to_list()
    for (name, share), colour in zip(PERCENTILES.items(), COLOURS, strict=False):
        times.plot(1000 * timed[name], range(len(cells)), "o", color=colour, label=f"{share} %")
    times.set_xlabel("milliseconds for one answer, one prompt at a time", fontsize=8)
    times.legend(fontsize=8, frameon=False)
    speed.barh(range(len(cells)), timed["tokens_per_s"], color=COLOURS[0])
    speed.set_xlabel("new tokens/s", fontsize=8)
    for panel in (times, speed):
        panel.set_yticks(range(len(cells)), cells, fontsize=8)
        panel.set_ylim(len(cells) - 0.5, -0.5)
        panel.set_xlim(left=0)
    speed.tick_params(labelleft=False)
    return figure


def figures(study: Frontier, timed: pl.DataFrame) -> "Mapping[str, tuple[str, Figure]]":
    """Return caption and figure by name; figures without data are left out."""
    drawn: dict[str, tuple[str, Figure]] = {}
    for factor in BY_FACTOR:
        if len(levels(factor, study.cells)) > 1:
            drawn[f"{factor}_comparison"] = (f"{factor}: means over seeds", factor_comparison(study, factor))
    for quality in ("test_loss", "score") if study.cells else ():
        caption = f"{quality.replace('_', ' ')} against cost; the line is the frontier of the means"
        drawn[f"pareto_{quality}"] = (caption, pareto_frontier(study, quality))
    if not timed.is_empty():
        drawn["answer_times"] = ("time of one answer by percentile", answer_times(timed))
    return drawn


def _draw(panel: "Axes", position: float, mean: SeedMean, colour: str, *, label: str = "", marker: str = "o") -> None:
    mean = _scaled(mean)
    error = None if mean.low is None or mean.high is None else [[mean.mean - mean.low], [mean.high - mean.mean]]
    panel.errorbar(
        [position], [mean.mean], yerr=error, fmt=marker, color=colour, ecolor=INK, elinewidth=1, capsize=3, label=label
    )


def _logarithmic(panel: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(axis="x", labelsize=7)


def _axis(study: Frontier, metric: str) -> str:
    seeds: Sequence[int] = sorted({mean.n for mean in study.means})
    n = " to ".join(map(str, sorted({seeds[0], seeds[-1]})))
    label = f"{study.suite.replace('_', ' ')} {study.metric}" if metric == "score" else AXES[metric]
    kind = f" ({study.memory_kind})" if metric == "peak_memory_bytes" else ""
    return f"{label}{kind}" if metric == "trainable_parameters" else f"{label}{kind}, n={n}"


def _mean_of_cell(study: Frontier, cell: str, metric: str) -> SeedMean:
    return next(mean for mean in study.means if (mean.cell, mean.metric) == (cell, metric))


def _scaled(mean: SeedMean) -> SeedMean:
    scale = SCALE.get(mean.metric, 1.0)
    low, high = (None if end is None else end * scale for end in (mean.low, mean.high))
    return SeedMean(mean.cell, mean.metric, mean.n, mean.mean * scale, low, high)
