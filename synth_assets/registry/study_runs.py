"""Variants of the efficiency study in MLflow: one run each, found by its tags; none is a version of the model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.retry import with_retries
from synth_assets.registry.run_metrics import log_numbers, log_parameters


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
            log_parameters(tracker.client, run, facts)
            log_numbers(tracker.client, run, numbers, curve)
            text = json.dumps(dict(numbers), sort_keys=True, indent=1)
            tracker.client.log_text(run.info.run_id, text, "numbers.json")
            tracker.client.set_terminated(run.info.run_id, "FINISHED")
        return run.info.run_id

    safe = "The variant is safe on disk; run it again once MLflow answers: it only logs"
    with tracker.lock(f"variant-{identity['variant']}"):
        return with_retries(log, tracker.client.tracking_uri, safe)


def add_numbers(tracker: MlflowTracker, run_id: str, numbers: Mapping[str, float]) -> None:
    """Add numbers to a run that is finished."""
    client = tracker.client
    with_retries(lambda: log_numbers(client, client.get_run(run_id), numbers), client.tracking_uri)
