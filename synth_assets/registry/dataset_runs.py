"""Dataset runs in MLflow: one run per data version, with its metrics and files."""

from collections.abc import Mapping
from pathlib import Path

from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.stage_runs import StageRun, log_stage


def log_dataset(
    tracker: MlflowTracker, name: str, data_version: str, numbers: Mapping[str, float], folder: Path
) -> str:
    """Log a data version once, with all files of `folder`, and return the run id. Later calls return the same run.

    Raises:
        TrackingError: MLflow stays unreachable; the files are kept in `folder`.
    """
    stage = StageRun(name, data_version, numbers, parameters={}, tags=tracker.tags)
    safe = f"The files are kept in {folder}; materialise the asset again once MLflow is reachable"
    return log_stage(tracker, stage, folder, safe)
