"""Dataset runs in MLflow: one run per data version, with its metrics and files."""

from collections.abc import Mapping
from pathlib import Path

from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.retry import with_retries
from synth_assets.registry.run_metrics import log_numbers


def log_dataset(
    tracker: MlflowTracker, name: str, data_version: str, numbers: Mapping[str, float], folder: Path
) -> str:
    """Log a data version once, with all files of `folder`, and return the run id. Later calls return the same run.

    Raises:
        TrackingError: MLflow stays unreachable; the files are kept in `folder`.
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

    safe = f"The files are kept in {folder}; materialise the asset again once MLflow is reachable"
    with tracker.lock(f"dataset-{data_version}"):
        return with_retries(log, tracker.client.tracking_uri, safe)
