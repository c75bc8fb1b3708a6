"""Figures of a study: what was measured and nothing else, each mean with its interval over seeds."""

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
    """A panel for each number of BY_FACTOR: the levels of one sweep, each mean with its interval.

    Raises:
        ValueError: fewer than two levels were measured.
    """
    swept = levels(factor, study.cells)
    if len(swept) < 2:
        raise ValueError(f"{factor} comparison: {len(swept)} of its levels were measured; two are wanted")
    figure, panels = blank_panels(len(BY_FACTOR[factor]), height=2.8)
    for panel, metric in zip(panels, BY_FACTOR[factor], strict=True):
        for place, cell in enumerate(swept.values()):
            _draw(panel, place, _of(study, cell, metric), COLOURS[0])
        panel.set_xticks(range(len(swept)), list(swept))
        panel.set_xlim(-0.5, len(swept) - 0.5)
        panel.set_xlabel(factor)
        panel.set_ylabel(_axis(study, metric), fontsize=8)
    return figure


def pareto_frontier(study: Frontier, quality: str) -> "Figure":
    """A panel for each cost: every cell's mean quality over it, and the frontier of the means as a line.

    Raises:
        ValueError: no cell was measured.
    """
    if not study.cells:
        raise ValueError("pareto frontier: no cell was measured")
    figure, panels = blank_panels(len(COSTS), height=3.6)
    for panel, cost in zip(panels, COSTS, strict=True):
        on = study.pareto[f"{quality} against {cost}"]
        line = [(_scaled(_of(study, cell, cost)).mean, _of(study, cell, quality).mean) for cell in on]
        panel.plot(*zip(*line, strict=True), color=INK, linewidth=1, zorder=1)
        for number, cell in enumerate(study.cells):
            colour, marker = COLOURS[number % len(COLOURS)], "os^D"[number // len(COLOURS) % 4]
            place = _scaled(_of(study, cell, cost)).mean
            _draw(panel, place, _of(study, cell, quality), colour, label=cell, marker=marker)
        if cost == "trainable_parameters":
            _logarithmic(panel)
        panel.set_xlabel(_axis(study, cost), fontsize=8)
        panel.set_ylabel(_axis(study, quality), fontsize=8)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, ncols=4, loc="outside lower center")
    return figure


def answer_times(timed: pl.DataFrame) -> "Figure":
    """Percentiles of the time of one answer, a group of marks for each cell.

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
    """Name to caption and figure, of all for which there are data."""
    found: dict[str, tuple[str, Figure]] = {}
    for factor in BY_FACTOR:
        if len(levels(factor, study.cells)) > 1:
            found[f"{factor}_comparison"] = (f"{factor}: means over seeds", factor_comparison(study, factor))
    for quality in ("test_loss", "score") if study.cells else ():
        caption = f"{quality.replace('_', ' ')} against what it costs; the line joins the frontier of the means"
        found[f"pareto_{quality}"] = (caption, pareto_frontier(study, quality))
    if not timed.is_empty():
        found["answer_times"] = ("time of one answer by percentile", answer_times(timed))
    return found


def _draw(panel: "Axes", place: float, one: SeedMean, colour: str, *, label: str = "", marker: str = "o") -> None:
    one = _scaled(one)
    error = None if one.low is None or one.high is None else [[one.mean - one.low], [one.high - one.mean]]
    panel.errorbar(
        [place], [one.mean], yerr=error, fmt=marker, color=colour, ecolor=INK, elinewidth=1, capsize=3, label=label
    )


def _logarithmic(panel: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(axis="x", labelsize=7)


def _axis(study: Frontier, metric: str) -> str:
    seeds: Sequence[int] = sorted({one.n for one in study.means})
    n = " to ".join(map(str, sorted({seeds[0], seeds[-1]})))
    told = f"{study.suite.replace('_', ' ')} {study.metric}" if metric == "score" else AXES[metric]
    kind = f" ({study.memory_kind})" if metric == "peak_memory_bytes" else ""
    return f"{told}{kind}" if metric == "trainable_parameters" else f"{told}{kind}, n={n}"


def _of(study: Frontier, cell: str, metric: str) -> SeedMean:
    return next(one for one in study.means if (one.cell, one.metric) == (cell, metric))


def _scaled(one: SeedMean) -> SeedMean:
    scale = SCALE.get(one.metric, 1.0)
    low, high = (None if end is None else end * scale for end in (one.low, one.high))
    return SeedMean(one.cell, one.metric, one.n, one.mean * scale, low, high)
