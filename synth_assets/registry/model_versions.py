"""What the registry knows about where its versions came from."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from synth_assets.registry.mlflow_tracker import DATA_VERSIONS, MODEL, RECORD, MlflowTracker
from synth_assets.registry.retry import with_retries
from synth_assets.registry.tags import tag_filter
from synth_assets.reporting.escaping import first_sections
from synth_assets.schemas.records import AdapterRecord, RecordedDecision
from synth_assets.schemas.serialization import fingerprint, from_json
from synth_assets.storage.lineage import TAINTED, LineageError, ModelVersion, recalled_rows_of
from synth_assets.storage.manifests import ManifestError, folder_hash, read_manifest
from synth_assets.storage.retractions import recalls_in_force, taint_text
from synth_assets.text.redaction import redact, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as Registered

CARD = "model_card.md"
DECISIONS = "decisions.json"  # every decision on a version, beside its training
NEEDED_TAGS = {"asset", "data_version", "data_versions"}  # of a version that an adapter asset registered


class RowFolders(Protocol):
    """The folders of a home that say which rows were recalled and which rows each version was made from."""

    def recalls(self) -> Path:
        """Return the folder of the recall log."""
        ...

    def manifests(self) -> Path:
        """Return the folder of the row manifests."""
        ...


def model_versions(tracker: MlflowTracker) -> list[ModelVersion]:
    """Every version that an adapter asset registered, with what it was made from and its aliases; oldest first.

    Raises:
        LineageError: what a version was made from is gone, or is not what it was registered with.
        TrackingError: MLflow stays unreachable.
    """
    client = tracker.client
    found = with_retries(lambda: client.search_model_versions(f"name = '{MODEL}'"), client.tracking_uri)
    made = sorted((one for one in found if one.tags.keys() >= NEEDED_TAGS), key=lambda one: int(one.version))
    aliases = tracker.aliases()
    return [_described(client, one, aliases) for one in made]


def model_version(tracker: MlflowTracker, number: str) -> ModelVersion:
    """One version; KeyError where it does not exist or no adapter asset registered it, else as `model_versions`."""
    one = tracker.registered(number)
    if missing := NEEDED_TAGS - one.tags.keys():
        raise KeyError(f"version {number} was not registered by an adapter asset: it has no tag {min(missing)}")
    return _described(tracker.client, one, tracker.aliases())


def adapter_record(tracker: MlflowTracker, number: str) -> AdapterRecord:
    """What the training said of a version; KeyError where it does not exist, LineageError where its run lost it."""
    from mlflow.exceptions import MlflowException

    client, run_id = tracker.client, str(tracker.registered(number).run_id)
    try:
        return from_json(AdapterRecord, with_retries(lambda: _text(client, run_id, RECORD), client.tracking_uri))
    except MlflowException as error:
        raise LineageError(f"{RECORD} of MLflow run {run_id} is gone: train again (synth run)") from error


def restore_adapter(tracker: MlflowTracker, number: str, folder: Path) -> None:
    """Fetch the files of a version, as they were registered, into `folder`; what lies there is replaced.

    Raises:
        LineageError: the registry has lost them, or holds others.
        KeyError: there is no such version.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    one, uri = tracker.registered(number), tracker.client.tracking_uri
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".restored-") as temporary:
        try:
            found = Path(
                with_retries(lambda: download_artifacts(str(one.source), dst_path=temporary, tracking_uri=uri), uri)
            )
            read_manifest(found)
        except (MlflowException, OSError, ManifestError) as error:
            cause = redact(str(error))
            raise LineageError(
                f"MLflow does not hold the files of version {number} any more: {cause}"
            ) from without_secrets(error)
        if folder_hash(found) != one.tags["data_version"]:
            raise LineageError(f"MLflow holds other files of version {number} than were registered")
        shutil.rmtree(folder, ignore_errors=True)
        found.replace(folder)


def ensure_adapter(tracker: MlflowTracker, number: str, folder: Path) -> None:
    """Make sure that `folder` holds the files of a version as they were registered; fetch them where it does not.

    Raises:
        LineageError: they are nowhere.
        KeyError: there is no such version.
    """
    expected = tracker.version_tags(number).get("data_version")
    try:
        read_manifest(folder)
        if folder_hash(folder) == expected:
            return
    except ManifestError:
        pass
    restore_adapter(tracker, number, folder)


def taint(tracker: MlflowTracker, folders: RowFolders, number: str) -> str:
    """Which recalled rows a version was trained on, also where nobody tagged it: it may be newer than the recall.

    Where its row manifest is missing nothing can clear it of a recall, and the text says so. Empty where it is clean.
    """
    recalls = recalls_in_force(folders.recalls())
    if recalls.is_empty():
        return tracker.version_tags(number).get(TAINTED, "")
    try:
        return taint_text(recalled_rows_of(folders.manifests(), model_version(tracker, number), recalls))
    except LineageError as error:
        return str(error)


def decisions_on(tracker: MlflowTracker, number: str) -> list[RecordedDecision]:
    """Every decision on a version that was kept beside it, oldest first; none where its training run is gone.

    Raises:
        KeyError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    client, run_id = tracker.client, str(tracker.registered(number).run_id)

    def read() -> list[RecordedDecision]:
        if not any(file.path == DECISIONS for file in client.list_artifacts(run_id)):
            return []
        rows = json.loads(_text(client, run_id, DECISIONS))
        return [from_json(RecordedDecision, json.dumps(row)) for row in rows]

    try:
        return with_retries(read, client.tracking_uri)
    except MlflowException:
        return []


def keep_decision(tracker: MlflowTracker, number: str, judged: RecordedDecision) -> list[RecordedDecision]:
    """Keep a decision beside the version that it is about; returns all of them. A run keeps one, however often.

    Raises:
        LineageError: the training run of the version is gone.
    """
    client, run_id = tracker.client, str(tracker.registered(number).run_id)
    with tracker.lock("decisions"):
        kept = [one for one in decisions_on(tracker, number) if one.run_id != judged.run_id]
        text = json.dumps([asdict(one) for one in [*kept, judged]], sort_keys=True, indent=1)
        _attached(number, run_id, lambda: client.log_text(run_id, text, DECISIONS), client.tracking_uri)
    return [*kept, judged]


def runs_with(tracker: MlflowTracker, tags: Mapping[str, str]) -> int:
    """How many runs of the experiment have all these tags."""
    client, count, token = tracker.client, 0, None
    while True:
        page = with_retries(
            lambda token=token: client.search_runs([tracker.experiment], tag_filter(tags), page_token=token),
            client.tracking_uri,
        )
        count, token = count + len(page), page.token
        if not token:
            return count


def attach_card(tracker: MlflowTracker, number: str, card: str) -> None:
    """Put a model card beside the training of a version, and what fits of it into the version's description.

    Raises:
        LineageError: the training run of the version is gone.
    """
    client, run_id = tracker.client, str(tracker.registered(number).run_id)

    def attach() -> None:
        client.log_text(run_id, card, CARD)
        client.update_model_version(MODEL, number, description=first_sections(card))

    _attached(number, run_id, attach, client.tracking_uri)


def _attached(number: str, run_id: str, attach: Callable[[], None], uri: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        with_retries(attach, uri)
    except MlflowException as error:
        raise LineageError(f"MLflow run {run_id}, the training of version {number}, is gone: {error}") from error


def _described(client: "MlflowClient", one: "Registered", aliases: Mapping[str, str]) -> ModelVersion:
    return ModelVersion(
        version=str(one.version),
        asset=one.tags["asset"],
        data_version=one.tags["data_version"],
        data_versions=_data_versions(client, one),
        aliases=tuple(sorted(name for name, version in aliases.items() if version == str(one.version))),
        tags=dict(one.tags),
    )


def _data_versions(client: "MlflowClient", version: "Registered") -> dict[str, str]:
    """Data versions of everything that a version was made from, by asset, as its run holds them."""
    from mlflow.exceptions import MlflowException

    where = f"{DATA_VERSIONS} of MLflow run {version.run_id}, which says what version {version.version} was made from,"
    try:
        found = json.loads(with_retries(lambda: _text(client, str(version.run_id), DATA_VERSIONS), client.tracking_uri))
    except MlflowException as error:
        raise LineageError(f"{where} is gone: delete that version, or train again (synth run)") from error
    if fingerprint(found) != version.tags["data_versions"]:
        raise LineageError(f"{where} was changed since: train again (synth run)")
    return found


def _text(client: "MlflowClient", run_id: str, artifact: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, artifact, folder)).read_text("utf-8")
