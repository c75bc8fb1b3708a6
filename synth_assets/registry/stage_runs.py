"""Runs of the stages before and after training in MLflow: one run per data version, with parameters and counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth_assets.registry.retry import with_retries
from synth_assets.registry.run_metrics import log_numbers, log_parameters

if TYPE_CHECKING:
    from synth_assets.registry.mlflow_tracker import MlflowTracker


@dataclass(frozen=True)
class StageRun:
    """What one materialisation leaves in MLflow.

    Args:
        name: asset, with its partition if it has one.
        data_version: its data version, or another id of the materialisation.
        numbers: counts and rates.
        parameters: settings.
        tags: run id, asset and partition in Dagster.
        texts: artifact name -> text.
        finished_ms: when it was materialised, in milliseconds since 1970; None for now.
    """

    name: str
    data_version: str
    numbers: Mapping[str, float]
    parameters: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    finished_ms: int | None = None


def log_stage(tracker: "MlflowTracker", stage: StageRun, folder: Path | None = None, safe: str = "") -> str:
    """Log a stage once and return the run id. Later calls with the same name and version return the same run.

    Args:
        tracker: the tracker.
        stage: the stage.
        folder: files to upload, if any.
        safe: what was saved, for the message of a failure.

    Raises:
        TrackingError: MLflow stays unreachable.
    """
    client, identity = tracker.client, {"dataset": stage.name, "data_version": stage.data_version}

    def log() -> str:
        run = tracker.run_with(identity) or client.create_run(
            tracker.experiment,
            start_time=stage.finished_ms,
            run_name=f"{stage.name}/{stage.data_version[:8]}",
            tags={**stage.tags, **identity},
        )
        run_id = run.info.run_id
        if run.info.status != "FINISHED":
            log_parameters(client, run, stage.parameters)
            log_numbers(client, run, stage.numbers)
            for name, text in stage.texts.items():
                client.log_text(run_id, text, name)
            if folder:
                client.log_artifacts(run_id, str(folder))
            client.set_terminated(run_id, "FINISHED", end_time=stage.finished_ms)
        return run_id

    with tracker.lock(f"dataset-{stage.data_version}"):
        return with_retries(log, client.tracking_uri, safe)
