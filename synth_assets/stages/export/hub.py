"""Release a merged model on a hub: model card, licence, push, and fetching it back by revision."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synth_assets.llm.catalog import model_at
from synth_assets.llm.model_files import EMBEDDED, hub_error_message
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.folders import check_disk, export_folder, link_or_copy
from synth_assets.stages.export.merge import LogitDifference
from synth_assets.stages.export.source import ExportSource
from synth_assets.stages.export.write import EXPORT_VERSION
from synth_assets.storage.blocks import Progress
from synth_assets.storage.manifests import MANIFEST, file_sha256, read_manifest
from synth_assets.text.redaction import redact, without_secrets

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

CARD = "README.md"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
EMBEDDED_LICENCE = "mit"  # the licence of this project, which made the embedded models
REPLACED = ["*.safetensors", "*.json", "*.jinja"]  # files of an earlier release that must not mix with the new ones
OWN_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Release:
    """A folder that is ready to be pushed.

    Attributes:
        licence: the licence's identifier on the hub.
        logits: how the merged model differs from the adapter on its base.
    """

    licence: str
    logits: LogitDifference


@dataclass(frozen=True)
class Pushed:
    """A release on the hub.

    Attributes:
        repository: owner/name.
        revision: the commit.
        url: address of the commit.
        files: number of files that were fetched back with equal hashes.
    """

    repository: str
    revision: str
    url: str
    files: int


def licence_of(base_folder: Path, base: str, licence: str = "") -> str:
    """Return the licence of a release: the given one, else that of the base model.

    Raises:
        ExportError: the licence is unknown, or no identifier.
    """
    known = licence or _recorded(base_folder) or (EMBEDDED_LICENCE if base.startswith(EMBEDDED) else "")
    known = known or (row.licence if (row := model_at(base)) else "")
    if not LICENCE.fullmatch(known):
        raise ExportError(
            f"the licence of {base} is {known or 'unknown'!r}: name the identifier of a licence that its terms allow, "
            "such as --licence apache-2.0 or other"
        )
    return known


def _recorded(folder: Path, name: str = "licence") -> str:
    """Return a fact in the manifest of a model that was fetched from a package index; empty for others."""
    path = folder / MANIFEST
    return str(json.loads(path.read_text("utf-8")).get("facts", {}).get(name, "")) if path.is_file() else ""


def _hub_name(source: ExportSource) -> str | None:
    """Return the repository of the base model on the hub, or None if it is not known to be there."""
    name = _recorded(source.base_folder, "upstream") or source.base
    return name if OWN_NAME.fullmatch(name) else None


def export_release(
    request: dict[str, object],
    target: Path,
    source: ExportSource,
    licence: str,
    make_merged: "Callable[[Path], tuple[Path, LogitDifference]]",
    progress: Progress,
) -> Release:
    """Write the files of a release to a folder: the merged model, its licence and a model card.

    Args:
        request: JSON values that identify the merged model.
        target: the folder.
        source: the exported version.
        licence: the licence's identifier.
        make_merged: returns the merged model and its difference; its argument is a folder for parts.
        progress: gets lines.
    """

    def make(new: Path, work: Path) -> Release:
        merged, logits = make_merged(work)
        for path in sorted(merged.iterdir()):
            if path.is_file() and path.name != MANIFEST:
                link_or_copy(path, new / path.name)
        (new / CARD).write_text(release_card(source, licence, logits), "utf-8")
        progress(f"wrote {CARD}, licence {licence}")
        return Release(licence, logits)

    identity = {"format": "hub", "licence": licence, "evaluation": source.evaluation, "exporter": EXPORT_VERSION}
    return export_folder(target, {**request, **identity}, Release, make, progress)


def release_card(source: ExportSource, licence: str, logits: LogitDifference) -> str:
    """Return the model card, Markdown with the hub's YAML header."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=_hub_name(source),
        license=licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["synth-assets"],
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# Version {source.version} on {source.base}",
        f"LoRA adapter `{source.adapter}` merged into `{source.base}`, revision `{source.base_revision}`. Merged in "
        f"float32 and rounded once: {logits.text()}.",
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        'chat = pipeline("text-generation", model="<owner>/<name>", revision="<commit>")\n'
        'print(chat([{"role": "user", "content": "Hello!"}], max_new_tokens=64)[0]["generated_text"][-1])\n```',
        *([f"## Evaluation\n\n{source.evaluation}"] if source.evaluation else []),
    ]
    return "\n\n".join(sections) + "\n"


def check_repository(name: str) -> None:
    """Raise ExportError unless a name is empty or a hub repository."""
    if name and not OWN_NAME.fullmatch(name):
        raise ExportError(f"repository must be owner/name, got {redact(name)!r}")


def push(folder: Path, repository: str, *, private: bool, progress: Progress) -> Pushed:
    """Push a release to a hub repository, creating it if needed, and fetch the commit back.

    The hub is HF_ENDPOINT's, the token HF_TOKEN's. Files of an earlier release are replaced.

    Raises:
        ExportError: the name is no repository, the hub is unreachable, offline mode is on, the token may not write, or
            the files that come back differ.
        ManifestError: the folder was changed since it was written.
    """
    from huggingface_hub import HfApi, constants

    check_repository(repository)
    if constants.is_offline_mode():
        raise ExportError("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: set both to 0 to push to the hub")
    read_manifest(folder)
    api = HfApi()
    with _hub_errors(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        progress(f"pushing to {repository}")
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message="Release by synth export",
            delete_patterns=REPLACED,
        )
        progress(f"fetching {repository} back at {commit.oid}")
        files = _fetch_back(folder, repository, str(commit.oid))
    return Pushed(repository, str(commit.oid), str(commit.commit_url), files)


def _fetch_back(folder: Path, repository: str, revision: str) -> int:
    """Download a commit and compare each file; return the number of files."""
    from huggingface_hub import snapshot_download

    check_disk(folder.parent, sum(path.stat().st_size for path in folder.rglob("*")), "fetching the release back")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetched-") as temporary:
        fetched = Path(snapshot_download(repository, revision=revision, local_dir=temporary))
        for name in names:
            if not (fetched / name).is_file() or file_sha256(fetched / name) != file_sha256(folder / name):
                raise ExportError(f"{name} of {repository} at {revision} is not the pushed file: push again")
        shutil.rmtree(fetched / ".cache", ignore_errors=True)
    return len(names)


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    )

    try:
        yield
    except HfHubHTTPError as error:
        raise ExportError(_push_error(repository, error)) from without_secrets(error)
    except (HTTPError, OSError) as error:
        raise ExportError(f"{repository} could not be pushed ({redact(str(error))}): run again") from without_secrets(
            error
        )


def _push_error(repository: str, error: "HfHubHTTPError") -> str:
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return f"the hub does not let this token write to {repository} ({status}): set HF_TOKEN to one that may"
    return hub_error_message(repository, error)
