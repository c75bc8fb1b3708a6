"""Artifacts of a training: logged curve and figures."""

import json
from dataclasses import asdict
from pathlib import Path

from synth_assets.reporting.figures import markdown_image, png
from synth_assets.reporting.training_figures import training_curves, training_of
from synth_assets.schemas.records import AdapterRecord
from synth_assets.storage.atomic import write_bytes, write_text
from synth_assets.training.engine import Outcome
from synth_assets.training.methods import METHODS

SCHEDULE = "schedule.json"


def logged_curve(outcome: Outcome) -> list[dict[str, float]]:
    """Return the curve, followed by the totals of the training."""
    totals = {"fill_rate": outcome.fill_rate, "host_peak_bytes": float(outcome.host_peak_bytes)}
    totals |= {f"predicted_{name}": value for name, value in outcome.predicted.items()}
    totals |= {f"validation_{name}": value for name, value in outcome.validation.items()}
    return [*outcome.curve, {"step": float(outcome.steps)} | totals]


def write_curves(record: AdapterRecord, outcome: Outcome, folder: Path) -> None:
    """Write the figure of the curves, the phases of the schedule and the events of a training."""
    facts = {"schedule": record.spec.get("schedule"), "phases": outcome.phases, "events": outcome.events}
    write_text(folder / SCHEDULE, json.dumps(facts, indent=1))
    if drawn := training_curves(METHODS[record.method].curves, [training_of(record.name, asdict(outcome))]):
        name, figure = drawn
        write_bytes(folder / f"{name}.png", png(figure))


def curves_image(record: AdapterRecord, outcome: Outcome) -> dict[str, str]:
    """Return the curves as a Markdown image by name; empty if an older version stored none."""
    drawn = training_curves(METHODS[record.method].curves, [training_of(record.name, asdict(outcome))])
    if drawn is None:
        return {}
    name, figure = drawn
    return {name: markdown_image(name.replace("_", " "), figure)}
