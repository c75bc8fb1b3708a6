"""Datasets in MLflow: one run for each data version, with its numbers and its files."""

from collections.abc import Mapping
from pathlib import Path

from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.retry import with_retries
from synth_assets.registry.run_metrics import log_numbers


def log_dataset(
    tracker: MlflowTracker, name: str, data_version: str, numbers: Mapping[str, float], folder: Path
) -> str:
    """Log a data version once, with all files of `folder`; returns the run id, the same for the same version.

    Raises:
        TrackingError: MLflow stays unreachable; the files are safe in `folder`.
    """
    identity = {"dataset": name, "data_version": data_version}

    def log() -> str:
        client = tracker.client
        run = tracker.run_with(identity) or client.create_run(
            tracker.experiment, run_name=f"{name}/{data_version[:8]}", tags={**tracker.tags, **identity}
        )
        run_id = run.info.run_id
        if run.info.status != "FINISHED":
            log_numbers(client, run, numbers)
            client.log_artifacts(run_id, str(folder))
            client.set_terminated(run_id, "FINISHED")
        return run_id

    safe = f"The files are safe in {folder}; run the asset again once MLflow answers"
    with tracker.lock(f"dataset-{data_version}"):
        return with_retries(log, tracker.client.tracking_uri, safe)
