"""What an adapter leaves beside its numbers: the rows it was trained on, what is logged of it, its curves drawn."""

import json
from dataclasses import asdict
from pathlib import Path

import polars as pl

from synth_assets.reporting.figures import markdown_image, png
from synth_assets.reporting.training_figures import training_curves, training_of
from synth_assets.schemas.records import AdapterRecord
from synth_assets.storage.atomic import write_atomically
from synth_assets.training.engine import Outcome
from synth_assets.training.methods import METHODS

CHOSEN_BY = ("pair_id", "source", "batch", "group", "score", "chosen_reward", "rejected_reward", "margin")
SCHEDULE = "schedule.json"


def trained_on(rows: pl.DataFrame) -> pl.DataFrame:
    """The row manifest of a training: each row's split, and what it was chosen by."""
    told = [name for name in CHOSEN_BY if name in rows.columns]
    return rows.select("row_id", pl.col("split").alias("fate"), *told)


def logged(outcome: Outcome) -> list[dict[str, float]]:
    """The curve, and after it what the whole training took and reached."""
    totals = {"fill_rate": outcome.fill_rate, "host_peak_bytes": float(outcome.host_peak_bytes)}
    totals |= {f"predicted_{name}": value for name, value in outcome.predicted.items()}
    totals |= {f"validation_{name}": value for name, value in outcome.validation.items()}
    return [*outcome.curve, {"step": float(outcome.steps)} | totals]


def write_curves(record: AdapterRecord, outcome: Outcome, folder: Path) -> None:
    """Into a folder: the curves as a picture, the phases of the schedule, and what happened to the training."""
    told = {"schedule": record.spec.get("schedule"), "phases": outcome.phases, "events": outcome.events}
    write_atomically(folder / SCHEDULE, lambda path: _write(path, json.dumps(told, indent=1).encode()))
    if drawn := training_curves(METHODS[record.method].curves, [training_of(record.name, asdict(outcome))]):
        name, figure = drawn
        image = png(figure)
        write_atomically(folder / f"{name}.png", lambda path: _write(path, image))


def curves_image(record: AdapterRecord, outcome: Outcome) -> dict[str, str]:
    """The curves under the figure's name, in Markdown; nothing where an older version left none."""
    drawn = training_curves(METHODS[record.method].curves, [training_of(record.name, asdict(outcome))])
    if drawn is None:
        return {}
    name, figure = drawn
    return {name: markdown_image(name.replace("_", " "), figure)}


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
