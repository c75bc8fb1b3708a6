"""Tags of model versions: a few on the version itself, the rest on its logged model, read as one.

MLflow's page of the registered model shows every tag of every version. So a version carries what a person looks for,
and its logged model the scores, hashes and the audit trail. Versions of earlier releases carry all of them; they are
read and updated where they are.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from synth_assets.registry.tags import model_id_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SHOWN_TAGS = ("asset", "role", "batch", "decision", "approved_by", "tainted")
PAGE = 100


def shown(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that belong on the version itself."""
    return {name: value for name, value in tags.items() if name in SHOWN_TAGS}


def tags_of(client: "MlflowClient", version: "ModelVersion") -> dict[str, str]:
    """Return all tags of a version."""
    return {**_model_tags(client, version), **version.tags}


def tags_of_all(client: "MlflowClient", experiment: str, name: str) -> dict[str, dict[str, str]]:
    """Return every version of a registered model and all its tags, oldest first."""
    versions = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    models: dict[str, dict[str, str]] = {}
    token = None
    while versions:
        page = client.search_logged_models([experiment], max_results=PAGE, page_token=token)
        models |= {model.model_id: dict(model.tags) for model in page}
        token = page.token
        if not token:
            break
    return {
        str(version.version): {**models.get(model_id_of(version) or "", {}), **version.tags} for version in versions
    }


def set_tags(client: "MlflowClient", version: "ModelVersion", tags: Mapping[str, str]) -> None:
    """Set tags of a version: on its logged model, if it has one, unless they are shown or already on the version."""
    model_id = model_id_of(version)
    hidden = {name: value for name, value in tags.items() if name not in SHOWN_TAGS and name not in version.tags}
    if model_id and hidden:
        client.set_logged_model_tags(model_id, hidden)
    for name, value in tags.items():
        if not model_id or name not in hidden:
            client.set_model_version_tag(version.name, str(version.version), name, value)


def delete_tag(client: "MlflowClient", version: "ModelVersion", name: str) -> None:
    """Delete a tag of a version wherever it is; do nothing if there is none."""
    if name in version.tags:
        client.delete_model_version_tag(version.name, str(version.version), name)
    model_id = model_id_of(version)
    if model_id and name in _model_tags(client, version):
        client.delete_logged_model_tag(model_id, name)


def _model_tags(client: "MlflowClient", version: "ModelVersion") -> dict[str, str]:
    """Return the tags of a version's logged model; empty if there is none any more."""
    from mlflow.exceptions import MlflowException

    model_id = model_id_of(version)
    try:
        return dict(client.get_logged_model(model_id).tags) if model_id else {}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
