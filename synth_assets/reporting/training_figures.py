"""Training curves: loss, reward margin, accuracy, and the learning rate with its phases."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from synth_assets.reporting.display_names import display_name
from synth_assets.reporting.figures import COLOURS, COLUMNS, GRID, INK, blank_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHED_SHARE = 20  # running mean over 1/20 of the steps
SMOOTHED_FROM = 40  # steps; shorter curves are not smoothed
NARROW_PHASE = 0.12  # share of the steps; the label of a narrower phase is rotated
STOPPED = "stopped at step"  # prefix of the early-stopping event


@dataclass(frozen=True)
class Training:
    """The data of one training to draw.

    Attributes:
        name: name of the adapter.
        curve: logged values of each step and each validation.
        phases: learning-rate phases with number, name, first_step and last_step; empty if not recorded.
        best_step: step whose weights were kept; 0: the last one.
        stopped: whether the training stopped early.
    """

    name: str
    curve: Sequence[Mapping[str, float]]
    phases: Sequence[Mapping[str, Any]] = ()
    best_step: int = 0
    stopped: bool = False

    def points(self, key: str) -> list[tuple[float, float]]:
        """Return (step, value) of the points with this key, ordered by step."""
        return sorted((point["step"], point[key]) for point in self.curve if key in point and "step" in point)

    def last_step(self) -> float:
        """Return the last step of the plan or, if there is no plan, of the curve."""
        planned = max((phase["last_step"] for phase in self.phases), default=0)
        return max([planned, *(point.get("step", 0) for point in self.curve)])


def training_of(name: str, outcome: Mapping[str, Any]) -> Training:
    """Create a Training from the outcome in an adapter's manifest; fields missing in older versions stay empty."""
    return Training(
        name=name,
        curve=outcome.get("curve", ()),
        phases=outcome.get("phases", ()),
        best_step=outcome.get("best_step", 0),
        stopped=any(event.startswith(STOPPED) for event in outcome.get("events", ())),
    )


@dataclass(frozen=True)
class Measure:
    """A row of panels: keys of the step and validation values, and axis limits (None: automatic)."""

    key: str
    title: str
    validation: str = ""
    low: float | None = None
    high: float | None = None
    level: float | None = None  # reference line: no effect
    shared: bool = False  # same axis for all trainings


LOSS = Measure("loss", "loss", "eval_loss", low=0.0)
RATE = Measure("learning_rate", "learning rate", low=0.0)
MARGIN = Measure("reward_margin", "reward margin", "eval_reward_margin", level=0.0, shared=True)
ACCURACY = Measure("reward_accuracy", "reward accuracy", "eval_reward_accuracy", low=0.0, high=1.0, level=0.5)
SUPERVISED, PREFERENCE = (LOSS, RATE), (LOSS, MARGIN, ACCURACY, RATE)


def training_curves(
    curves: Literal["supervised", "preference"], trainings: Sequence[Training], *, columns: int = COLUMNS
) -> "tuple[str, Figure] | None":
    """Return the name and the figure of these trainings; None if none of them has a curve."""
    measures = PREFERENCE if curves == "preference" else SUPERVISED
    if not any(training.points(measure.key) for training in trainings for measure in measures):
        return None
    if curves == "preference":
        return "dpo_training_curves", dpo_training_curves(trainings, columns=columns)
    return "sft_training_curves", sft_training_curves(trainings, columns=columns)


def sft_training_curves(trainings: Sequence[Training], *, columns: int = COLUMNS) -> "Figure":
    """Draw the loss and the learning rate of each supervised training.

    Raises:
        ValueError: no training has a curve.
    """
    return _curves(trainings, SUPERVISED, columns)


def dpo_training_curves(trainings: Sequence[Training], *, columns: int = COLUMNS) -> "Figure":
    """Draw the loss, reward margin, reward accuracy and learning rate of each preference training.

    Raises:
        ValueError: no training has a curve.
    """
    return _curves(trainings, PREFERENCE, columns)


def _curves(trainings: Sequence[Training], measures: Sequence[Measure], columns: int) -> "Figure":
    shown = [training for training in trainings if any(training.points(measure.key) for measure in measures)]
    if not shown:
        names = ", ".join(training.name for training in trainings)
        raise ValueError(f"training curves: no logged steps of {names or 'any training'}")
    columns = math.ceil(len(shown) / math.ceil(len(shown) / columns))  # rows of even length
    cells = list(_cells(shown, measures, columns))
    figure, panels = blank_panels(len(cells), height=2.1, columns=columns)
    handles: dict[str, Any] = {}
    for panel, cell in zip(panels, cells, strict=True):
        if cell is None:
            panel.remove()
            continue
        training, measure = cell
        _draw(panel, training, measure)
        panel.set_ylim(*_scale(shown, measure))
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    columns = min(columns + 1, 3)
    figure.legend(handles.values(), handles, fontsize=8, frameon=False, ncols=columns, loc="outside lower center")
    return figure


def _scale(trainings: Sequence[Training], measure: Measure) -> tuple[float | None, float | None]:
    """Return the axis limits; None for automatic ones."""
    if not measure.shared:
        return measure.low, measure.high
    values = [value for t in trainings for key in (measure.key, measure.validation) for _, value in t.points(key)]
    low, high = min([*values, measure.level or 0.0]), max([*values, measure.level or 0.0])
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _cells(
    trainings: Sequence[Training], measures: Sequence[Measure], columns: int
) -> Iterator[tuple[Training, Measure] | None]:
    """Yield the panels row by row: a column per training, a row per measure; None for an empty panel."""
    for start in range(0, len(trainings), columns):
        block = trainings[start : start + columns]
        for measure in measures:
            row = [(training, measure) if training.points(measure.key) else None for training in block]
            if any(row):
                yield from row + [None] * (columns - len(row))


def _draw(panel: "Axes", training: Training, measure: Measure) -> None:
    points = training.points(measure.key)
    steps, values = zip(*points, strict=True)
    _phases(panel, training, labelled=measure is RATE)
    if measure is RATE:
        _rate(panel, training)
    elif len(points) < SMOOTHED_FROM:
        panel.plot(steps, values, color=COLOURS[0], marker="." if len(points) < 3 else "", label="each step")
    else:
        window = max(2, len(points) // SMOOTHED_SHARE)
        panel.plot(steps, values, color=COLOURS[0], alpha=0.3, linewidth=0.8, label="each step")
        panel.plot(steps, _running_mean(values, window), color=COLOURS[0], label="running mean over 1/20 of the steps")
    if validation := training.points(measure.validation):
        panel.plot(*zip(*validation, strict=True), color=COLOURS[1], marker="o", markersize=3, label="validation")
    if training.best_step and measure is LOSS:
        panel.axvline(training.best_step, color=INK, linestyle=":", linewidth=1, label="kept weights")
    if measure.level is not None:
        panel.axhline(measure.level, color=INK, linestyle="--", linewidth=0.8, label="no preference")
    panel.set_xlim(0, training.last_step() + 0.5)
    panel.set_ylabel(measure.title, fontsize=8)
    panel.set_xlabel("step", fontsize=8)
    ended = f", stopped at step {steps[-1]:,.0f}" if training.stopped else ""
    panel.set_title(f"{display_name(training.name)}{ended}", fontsize=9)


def _rate(panel: "Axes", training: Training) -> None:
    """Draw the actual learning rate, and the planned one if the rate was reduced on a plateau."""
    steps, rates = zip(*training.points("learning_rate"), strict=True)
    panel.plot(steps, rates, color=COLOURS[2], label="learning rate")
    scales = dict(training.points("rate_scale"))
    if any(0 < scale < 1 for scale in scales.values()):
        plan = [rate / (scales.get(step, 1.0) or 1.0) for step, rate in zip(steps, rates, strict=True)]
        panel.plot(steps, plan, color=COLOURS[5], linestyle="--", linewidth=1, label="plan before reductions")
    panel.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)


def _phases(panel: "Axes", training: Training, *, labelled: bool) -> None:
    """Shade every other phase, and label the phases on the learning-rate panel."""
    for index, phase in enumerate(training.phases):
        first, last = phase["first_step"] - 0.5, phase["last_step"] + 0.5
        if index % 2 == 0 and len(training.phases) > 1:
            panel.axvspan(max(first, 0), last, color=GRID, alpha=0.45, linewidth=0)
        if labelled:
            narrow = last - first < NARROW_PHASE * training.last_step()
            x, align = (last, "left") if narrow else ((max(first, 0) + last) / 2, "center")
            rotation = 90 if narrow else 0
            axes = panel.get_xaxis_transform()
            panel.text(x, 0.04, phase["name"], transform=axes, rotation=rotation, ha=align, va="bottom", fontsize=7)


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the trailing mean of at most `window` values."""
    means, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means
