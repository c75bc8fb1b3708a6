"""Resolve and download models and data sets from the package, a local folder or a hub, without loading them.

Only safetensors weights are accepted, never code. Weights of a hub repository are downloaded on first use, at the
resolved commit.
"""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from synth_assets.embedded import model_path
from synth_assets.llm.chat_templates import check_chat_templates
from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.folder_checks import (
    ADAPTER_CONFIG,
    CONFIG,
    PICKLES,
    check_description_files,
    check_links,
)
from synth_assets.llm.sources.home_folders import HOME, home_model_folder
from synth_assets.llm.sources.packages import PACKAGE, packaged_folder
from synth_assets.llm.weight_files import INDEX, SINGLE, check_weights, indexed_names
from synth_assets.storage.manifests import folder_hash
from synth_assets.text.redaction import redact, without_secrets

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

EMBEDDED = "embedded:"
PROGRAM = "program:"
"""Prefix of a reward that a program computes (evals/program_rewards.py)."""
REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
DESCRIPTION_FILES = ["*.json", "*.jinja", "*.txt", "tokenizer.model", "*.spm"]
WEIGHT_FILES = ["*.safetensors"]
Kind = Literal["model", "dataset"]


class Resolved(NamedTuple):
    """Exact version of a model, and the folder with its configuration (with weights only for local models)."""

    revision: str
    folder: Path


def resolve(location: str) -> Resolved:
    """Resolve a model to an exact version, after validating everything except hub weights.

    Raises:
        ModelFilesError: the model does not exist, the hub is unreachable or denies access, the weights are pickles, or
            the repository requires custom code.
    """
    folder = local_folder(location)
    if folder is not None:
        check_files((str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()), location)
        check_description(folder, location)
        check_weights(folder, location)
        return Resolved(folder_hash(folder), folder)
    name, revision = split_repository(location)
    files = _list_files(name, revision)
    if files is not None:
        check_files(files, location)
    description = fetch(name, revision, DESCRIPTION_FILES)
    check_description(description, location)
    return Resolved(description.name, description)


def weights_folder(location: str, revision: str) -> Path:
    """Return the folder with a resolved model's weights, downloading them from the hub if needed.

    Raises:
        ModelFilesError: as in `resolve`, or the files of a local folder no longer match `revision`.
    """
    folder = local_folder(location)
    if folder is not None:
        if folder_hash(folder) != revision:
            raise ModelFilesError(f"{location} changed since it was resolved: materialise its asset again")
        return folder
    name, _ = split_repository(location)
    folder = fetch(name, revision, [*DESCRIPTION_FILES, *WEIGHT_FILES])
    if missing := _missing_weights(folder):
        raise ModelFilesError(f"{offline_message(name)}; missing: {', '.join(missing)}")
    check_files((path.name for path in folder.iterdir()), location)
    check_links(folder, location)
    check_weights(folder, location)
    return folder


def local_folder(location: str) -> Path | None:
    """Return the folder of an embedded or local model, or None for a hub repository."""
    if location.startswith(EMBEDDED):
        folder = model_path(location.removeprefix(EMBEDDED))
        if not (folder / CONFIG).is_file():
            raise ModelFilesError(f"{location} is not in this installation; build it with `synth embedded build`")
        return folder
    if location.startswith(PACKAGE):
        return packaged_folder(location)
    if location.startswith(HOME):
        return home_model_folder(location)
    path = Path(location).expanduser()
    if location and path.is_dir():
        return path.resolve()
    if REPOSITORY.fullmatch(location) and not location.startswith("."):
        return None
    raise ModelFilesError(
        f"{redact(location)!r} must be a local folder, a hub repository (owner/name, owner/name@revision), `home:` "
        "and a folder below SYNTH_HOME, or a name listed by `synth models`"
    )


def split_repository(location: str) -> tuple[str, str | None]:
    """Split "owner/name@revision" into name and revision; a missing revision means the default branch."""
    match = REPOSITORY.fullmatch(location)
    if match is None:
        raise ModelFilesError(f"{redact(location)!r} must be a hub repository: owner/name or owner/name@revision")
    return match["name"], match["revision"]


def check_files(names: Iterable[str], location: str) -> None:
    """Raise ModelFilesError if a model's files include no safetensors, or include an adapter.

    Pickled weights can run code when loaded. Transformers would silently load the adapter into the model.
    """
    names = list(names)
    if ADAPTER_CONFIG in names:
        raise ModelFilesError(
            f"{location} contains an adapter ({ADAPTER_CONFIG}), which would be loaded silently: merge it into the "
            "model, or use the folder of the base model without it"
        )
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    actual = f"only pickles ({', '.join(pickles[:3])}), which can run code when loaded" if pickles else "no weights"
    raise ModelFilesError(
        f"{location} has {actual}; use a revision with safetensors (owner/name@revision), or convert it to safetensors"
    )


def check_description(folder: Path, location: str) -> None:
    """Validate a model folder's links, JSON files and chat templates.

    Raises:
        ModelFilesError: a file is damaged, implausible, outside the folder, or asks for custom code; names the file,
            the field and the remedy.
    """
    check_links(folder, location)
    check_description_files(folder, location)
    if not location.startswith(EMBEDDED):  # the shipped templates are trusted
        check_chat_templates(folder, location)


def fetch(name: str, revision: str | None, patterns: list[str], kind: Kind = "model") -> Path:
    """Download files of a revision that the hub cache lacks, and return its snapshot folder, named by the commit.

    Offline, return the latest cached snapshot, which may lack files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise ModelFilesError(offline_message(name, kind)) from without_secrets(error)
    except HfHubHTTPError as error:
        raise ModelFilesError(hub_error_message(name, error)) from without_secrets(error)
    except (HTTPError, OSError, ValueError) as error:
        raise ModelFilesError(
            f"{name} could not be downloaded ({redact(str(error))}); run again, completed files are kept"
        ) from without_secrets(error)


def _list_files(name: str, revision: str | None) -> list[str] | None:
    """List the files of a repository; log a warning and return None if the hub is unreachable."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
        OfflineModeIsEnabled,
    )

    try:
        info = model_info(name, revision=revision)
    except HfHubHTTPError as error:
        raise ModelFilesError(hub_error_message(name, error)) from without_secrets(error)
    except (OfflineModeIsEnabled, HTTPError):
        logging.getLogger(__name__).warning("%s: the hub is unreachable; using the cached files", name)
        return None
    return [sibling.rfilename for sibling in info.siblings or []]


def _missing_weights(folder: Path) -> list[str]:
    """Return the safetensors files that the folder lacks."""
    index = folder / INDEX
    if not index.is_file():
        return [] if any(folder.glob("*.safetensors")) else [SINGLE]
    return [shard for shard in indexed_names(index, str(folder)) if not (folder / shard).is_file()]


def offline_message(name: str, kind: Kind = "model") -> str:
    """Return the error message for a repository that is not cached while the hub is unreachable."""
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    alternatives = {
        "model": "use a local folder, or select the tier cpu, whose models are included",
        "dataset": f"or download https://huggingface.co/datasets/{name} elsewhere and import the files",
    }
    return f"{name} is not on this machine and the hub is unreachable{offline}: connect, {alternatives[kind]}"


def hub_error_message(name: str, error: "HfHubHTTPError") -> str:
    """Return the error message for a request that the hub rejected, with the remedy."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return (
            f"{name} is gated: accept its licence at https://huggingface.co/{name} and set HF_TOKEN, "
            "or select the preset qwen, which needs neither"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no such revision; see https://huggingface.co/{name}/commits"
    if isinstance(error, RepositoryNotFoundError):
        return f"{name} is not on the hub or is private: check the spelling, or set HF_TOKEN to a token with access"
    status = getattr(error.response, "status_code", "no status")
    if status == 401:
        return f"{name}: the hub rejected the token (401); set HF_TOKEN to a valid one, or unset it for public models"
    return f"{name}: the hub returned {status}; try again later, or use a local folder"
