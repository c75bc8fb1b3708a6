"""Registered model versions: provenance, files, decisions and model cards."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from synth_assets.registry.flavour import FLAVOUR_FILES
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
DECISIONS = "decisions.json"  # artifact of the training run
NEEDED_TAGS = {"asset", "data_version", "data_versions"}  # tags that every version of an adapter asset has


class RowFolders(Protocol):
    """The folders of a home with the recall log and the row manifests."""

    def recalls(self) -> Path:
        """Return the folder of the recall log."""
        ...

    def manifests(self) -> Path:
        """Return the folder of the row manifests."""
        ...


def model_versions(tracker: MlflowTracker) -> list[ModelVersion]:
    """Return every version that an adapter asset registered, with its provenance and aliases, oldest first.

    Raises:
        LineageError: the data versions of a version are missing or were changed.
        TrackingError: MLflow stays unreachable.
    """
    client = tracker.client
    registered = with_retries(lambda: client.search_model_versions(f"name = '{MODEL}'"), client.tracking_uri)
    by_number = {str(version.version): version for version in registered}
    aliases = tracker.aliases()
    return [
        _version_of(client, by_number[number], tags, aliases)
        for number, tags in tracker.versions().items()
        if number in by_number and tags.keys() >= NEEDED_TAGS
    ]


def model_version(tracker: MlflowTracker, number: str) -> ModelVersion:
    """Return one version, as `model_versions` does.

    Raises:
        KeyError: the version does not exist, or no adapter asset registered it.
    """
    registered, tags = tracker.registered(number), tracker.version_tags(number)
    if missing := NEEDED_TAGS - tags.keys():
        raise KeyError(f"version {number} was not registered by an adapter asset: tag {min(missing)} is missing")
    return _version_of(tracker.client, registered, tags, tracker.aliases())


def adapter_record(tracker: MlflowTracker, number: str) -> AdapterRecord:
    """Return the training record of a version.

    Raises:
        KeyError: the version does not exist.
        LineageError: its run has lost the record.
    """
    from mlflow.exceptions import MlflowException

    client, run_id = tracker.client, str(tracker.registered(number).run_id)
    try:
        return from_json(AdapterRecord, with_retries(lambda: _text(client, run_id, RECORD), client.tracking_uri))
    except MlflowException as error:
        raise LineageError(f"{RECORD} of MLflow run {run_id} is missing: train again (synth run)") from error


def restore_adapter(tracker: MlflowTracker, number: str, folder: Path) -> None:
    """Download the registered files of a version into `folder`, replacing its content.

    Raises:
        LineageError: the files are missing or differ from the registered ones.
        KeyError: the version does not exist.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    entry, uri = tracker.registered(number), tracker.client.tracking_uri
    expected = tracker.version_tags(number)["data_version"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".restored-") as temporary:
        try:
            downloaded = Path(
                with_retries(lambda: download_artifacts(str(entry.source), dst_path=temporary, tracking_uri=uri), uri)
            )
            _remove_flavour(downloaded)
            read_manifest(downloaded)
        except (MlflowException, OSError, ManifestError) as error:
            cause = redact(str(error))
            raise LineageError(f"the files of version {number} are missing in MLflow: {cause}") from without_secrets(
                error
            )
        if folder_hash(downloaded) != expected:
            raise LineageError(f"the files of version {number} in MLflow differ from the registered ones")
        shutil.rmtree(folder, ignore_errors=True)
        downloaded.replace(folder)


def _remove_flavour(folder: Path) -> None:
    """Remove the files that MLflow loads a version with from its downloaded folder; the adapter's files stay."""
    for path in (folder / name for name in FLAVOUR_FILES):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def ensure_adapter(tracker: MlflowTracker, number: str, folder: Path) -> None:
    """Download the files of a version into `folder` unless it has them already.

    Raises:
        LineageError: the registry has lost the files.
        KeyError: the version does not exist.
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
    """Return which recalled rows a version was trained on; empty if none.

    Covers versions without a taint tag, which may be newer than the recall. If the row manifest is missing, the version
    cannot be cleared and the text says so.
    """
    recalls = recalls_in_force(folders.recalls())
    if recalls.is_empty():
        return tracker.version_tags(number).get(TAINTED, "")
    try:
        return taint_text(recalled_rows_of(folders.manifests(), model_version(tracker, number), recalls))
    except LineageError as error:
        return str(error)


def decisions_on(tracker: MlflowTracker, number: str) -> list[RecordedDecision]:
    """Return the recorded decisions on a version, oldest first; empty if its training run is gone.

    Raises:
        KeyError: the version does not exist.
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


def keep_decision(tracker: MlflowTracker, number: str, decision: RecordedDecision) -> list[RecordedDecision]:
    """Record a decision on a version and return all of them. A later decision of the same run replaces it.

    Raises:
        LineageError: the training run of the version is gone.
    """
    client, run_id = tracker.client, str(tracker.registered(number).run_id)
    with tracker.lock("decisions"):
        earlier = [entry for entry in decisions_on(tracker, number) if entry.run_id != decision.run_id]
        text = json.dumps([asdict(entry) for entry in [*earlier, decision]], sort_keys=True, indent=1)
        _with_run(number, run_id, lambda: client.log_text(run_id, text, DECISIONS), client.tracking_uri)
    return [*earlier, decision]


def runs_with(tracker: MlflowTracker, tags: Mapping[str, str]) -> int:
    """Return the number of runs of the experiment with all these tags."""
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
    """Attach a model card to the training run of a version, and put its first sections into the description.

    Raises:
        LineageError: the training run of the version is gone.
    """
    client, run_id = tracker.client, str(tracker.registered(number).run_id)

    def attach() -> None:
        client.log_text(run_id, card, CARD)
        client.update_model_version(MODEL, number, description=first_sections(card))

    _with_run(number, run_id, attach, client.tracking_uri)


def _with_run(number: str, run_id: str, attach: Callable[[], None], uri: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        with_retries(attach, uri)
    except MlflowException as error:
        raise LineageError(f"MLflow run {run_id}, the training of version {number}, is gone: {error}") from error


def _version_of(
    client: "MlflowClient", registered: "Registered", tags: Mapping[str, str], aliases: Mapping[str, str]
) -> ModelVersion:
    return ModelVersion(
        version=str(registered.version),
        asset=tags["asset"],
        data_version=tags["data_version"],
        data_versions=_data_versions(client, registered, tags["data_versions"]),
        aliases=tuple(sorted(name for name, version in aliases.items() if version == str(registered.version))),
        tags=dict(tags),
    )


def _data_versions(client: "MlflowClient", version: "Registered", expected: str) -> dict[str, str]:
    """Return the data versions of everything upstream of a version, by asset, from its run."""
    from mlflow.exceptions import MlflowException

    artifact = f"{DATA_VERSIONS} of MLflow run {version.run_id}, the data versions of version {version.version},"
    try:
        data = json.loads(with_retries(lambda: _text(client, str(version.run_id), DATA_VERSIONS), client.tracking_uri))
    except MlflowException as error:
        raise LineageError(f"{artifact} is missing: delete that version, or train again (synth run)") from error
    if fingerprint(data) != expected:
        raise LineageError(f"{artifact} was changed since it was logged: train again (synth run)")
    return data


def _text(client: "MlflowClient", run_id: str, artifact: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, artifact, folder)).read_text("utf-8")
