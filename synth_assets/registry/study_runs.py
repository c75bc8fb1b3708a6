"""Runs of the efficiency study's variants in MLflow: one run per variant, no model versions."""

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
    """Log a variant once and return the run id. Later calls with the same identity return the same run.

    Args:
        tracker: tracker of the study's experiment.
        identity: tags that identify the variant.
        numbers: measured metrics.
        curve: metrics of each logged step.
        facts: parameters.

    Raises:
        TrackingError: MLflow stays unreachable; a rerun reads the metrics from disk.
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

    safe = "The variant is kept on disk; run it again once MLflow is reachable: it only logs"
    with tracker.lock(f"variant-{identity['variant']}"):
        return with_retries(log, tracker.client.tracking_uri, safe)


def add_numbers(tracker: MlflowTracker, run_id: str, numbers: Mapping[str, float]) -> None:
    """Add metrics to a finished run."""
    client = tracker.client
    with_retries(lambda: log_numbers(client, client.get_run(run_id), numbers), client.tracking_uri)
