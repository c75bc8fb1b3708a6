"""Logged models in MLflow: the adapters, and the base model for its scores."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from synth_assets.registry.flavour import Flavour, write_flavour
from synth_assets.registry.tags import tag_filter
from synth_assets.schemas.records import BASE

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

    from synth_assets.registry.mlflow_tracker import MlflowTracker

BASE_MODEL = "base_model"
ADAPTER_TYPE = "adapter"
FLAVOUR = "flavour"  # tag of a logged model that `mlflow.pyfunc.load_model` loads


def adapter_model(
    tracker: "MlflowTracker",
    run_id: str,
    name: str,
    files: tuple[Path, Flavour | None],
    identity: Mapping[str, str],
) -> "LoggedModel":
    """Return the logged model of an adapter, uploading its folder and its flavour once."""
    folder, flavour = files
    model = _logged_model(tracker, run_id, name, ADAPTER_TYPE, identity)
    if not _is_ready(model):
        tracker.client.log_model_artifacts(model.model_id, str(folder))
        add_flavour(tracker, model, flavour)
        _finish(tracker, run_id, model)
    return model


def add_flavour(tracker: "MlflowTracker", model: "LoggedModel", flavour: Flavour | None) -> None:
    """Upload the flavour of a logged model unless it has one, so that versions of earlier releases load too."""
    if flavour is None or FLAVOUR in model.tags:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_flavour(flavour, model, Path(folder))
        tracker.client.log_model_artifacts(model.model_id, folder)
    tracker.client.set_logged_model_tags(model.model_id, {FLAVOUR: "pyfunc"})


def base_model(tracker: "MlflowTracker", run_id: str, identity: Mapping[str, str]) -> "LoggedModel":
    """Return the logged model of the base model, which has scores and no files."""
    model = _logged_model(tracker, run_id, BASE_MODEL, BASE, identity)
    if not _is_ready(model):
        _finish(tracker, run_id, model)
    return model


def _logged_model(
    tracker: "MlflowTracker", run_id: str, name: str, kind: str, identity: Mapping[str, str]
) -> "LoggedModel":
    client, experiment = tracker.client, tracker.experiment
    models = client.search_logged_models([experiment], filter_string=tag_filter(identity), max_results=1)
    if models:
        return models[0]
    return client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=dict(identity), model_type=kind)


def _is_ready(model: "LoggedModel") -> bool:
    from mlflow.entities import LoggedModelStatus

    return model.status == LoggedModelStatus.READY


def _finish(tracker: "MlflowTracker", run_id: str, model: "LoggedModel") -> None:
    """List the model among the outputs of its run, and mark it ready."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    outputs = tracker.client.get_run(run_id).outputs
    if not outputs or model.model_id not in {output.model_id for output in outputs.model_outputs}:
        tracker.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    tracker.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
