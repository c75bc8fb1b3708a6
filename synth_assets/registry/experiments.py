"""Experiments in MLflow: created once, with the tags by which MLflow's UI shows their runs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

KIND, DESCRIPTION = "mlflow.experimentKind", "mlflow.note.content"
RUNS_VIEW = "custom_model_development"  # without a kind, MLflow 3 may open on its view of GenAI traces, which is empty


def ensure_experiment(client: "MlflowClient", name: str, description: str, artifacts: str = "") -> str:
    """Create an experiment if it is missing, add the tags that it lacks, and return its id.

    Tags that a user has changed are kept.

    Args:
        client: the MLflow client.
        name: name of the experiment.
        description: description in Markdown, shown above its runs.
        artifacts: artifact location; empty if the server decides.
    """
    tags = {KIND: RUNS_VIEW, DESCRIPTION: description}
    existing = client.get_experiment_by_name(name)
    if existing is None:
        return client.create_experiment(name, artifact_location=artifacts or None, tags=tags)
    for key, value in tags.items():
        if key not in existing.tags:
            client.set_experiment_tag(existing.experiment_id, key, value)
    return existing.experiment_id


def runs_link(ui: str, experiment_id: str) -> str:
    """Return the address of an experiment's runs in the MLflow UI."""
    return f"{ui}/#/experiments/{experiment_id}/runs"


def model_link(ui: str, model: str) -> str:
    """Return the address of a registered model in the MLflow UI."""
    return f"{ui}/#/models/{model}"
