"""Variants of the efficiency study in MLflow: one run each, found by its tags; none is a version of the model."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resources.registry import BATCH, PARAM_LENGTH, MlflowTracker
from resources.retries import retried

if TYPE_CHECKING:
    from mlflow.entities import Run


def log_variant(
    tracker: MlflowTracker,
    identity: Mapping[str, str],
    numbers: Mapping[str, float],
    curve: Sequence[Mapping[str, float]],
    facts: Mapping[str, Any],
) -> str:
    """Log one variant once; returns the run id, the same for the same identity.

    Args:
        tracker: of the study's experiment.
        identity: tags that no two variants share, values of our own making.
        numbers: what was measured.
        curve: metrics by "step".
        facts: parameters.

    Raises:
        TrackingError: MLflow stays unreachable; a rerun finds the numbers on disk.
    """

    def log() -> str:
        run = tracker.run_with(identity) or tracker.client.create_run(
            tracker.experiment, run_name=identity["variant"], tags={**tracker.tags, **identity}
        )
        if run.info.status != "FINISHED":
            _fill(tracker, run, numbers, curve, facts)
            tracker.client.set_terminated(run.info.run_id, "FINISHED")
        return run.info.run_id

    safe = "The variant is safe on disk; run it again once MLflow answers: it only logs"
    with tracker.lock(f"variant-{identity['variant']}"):
        return retried(log, tracker.client.tracking_uri, safe)


def log_numbers(tracker: MlflowTracker, run_id: str, numbers: Mapping[str, float]) -> None:
    """Add numbers to a run that is finished; logged twice they are kept once."""
    from mlflow.entities import Metric

    def log() -> None:
        at = tracker.client.get_run(run_id).info.start_time
        tracker.client.log_batch(run_id, metrics=[Metric(name, value, at, 0) for name, value in numbers.items()])

    retried(log, tracker.client.tracking_uri)


def _fill(
    tracker: MlflowTracker,
    run: "Run",
    numbers: Mapping[str, float],
    curve: Sequence[Mapping[str, float]],
    facts: Mapping[str, Any],
) -> None:
    """Repeating this adds nothing: equal timestamps make equal metrics, which the store keeps once."""
    from mlflow.entities import Metric, Param

    at, run_id = run.info.start_time, run.info.run_id
    points = [Metric(name, value, at, 0) for name, value in numbers.items()]
    for index, row in enumerate(curve):
        step = int(row.get("step", index))
        points += [Metric(name, float(value), at + step, step) for name, value in row.items() if name != "step"]
    params = [Param(name, str(value)[:PARAM_LENGTH]) for name, value in sorted(facts.items())]
    tracker.client.log_batch(run_id, params=params)
    for start in range(0, len(points), BATCH):
        tracker.client.log_batch(run_id, metrics=points[start : start + BATCH])
    tracker.client.log_text(run_id, json.dumps(dict(numbers), sort_keys=True, indent=1), "numbers.json")
