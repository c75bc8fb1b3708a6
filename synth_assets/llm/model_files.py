"""Where models and published data sets come from: the package, a folder or a hub; only safetensors, never code.

Nothing here loads a model. Weights of a hub repository are fetched when they are first needed, at the commit that was
resolved.
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
    """A model's exact version, and the folder its description lies in (weights only where they are local)."""

    revision: str
    folder: Path


def resolve(location: str) -> Resolved:
    """The exact version of a model, after looking at all that can be seen without its weights.

    Raises:
        ModelFilesError: nothing is there, the hub cannot be reached or refuses, the weights are pickles, or the
            repository wants to run its own code.
    """
    folder = local_folder(location)
    if folder is not None:
        check_files((str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()), location)
        check_description(folder, location)
        check_weights(folder, location)
        return Resolved(folder_hash(folder), folder)
    name, revision = split_repository(location)
    files = _listed(name, revision)
    if files is not None:
        check_files(files, location)
    description = fetch(name, revision, DESCRIPTION_FILES)
    check_description(description, location)
    return Resolved(description.name, description)


def weights_folder(location: str, revision: str) -> Path:
    """The folder with a resolved model's weights, fetched from the hub where they are not here yet.

    Raises:
        ModelFilesError: as in `resolve`; or a local folder's files are not those of `revision` any more.
    """
    folder = local_folder(location)
    if folder is not None:
        if folder_hash(folder) != revision:
            raise ModelFilesError(f"the files of {location} changed since it was resolved: materialise its asset again")
        return folder
    name, _ = split_repository(location)
    folder = fetch(name, revision, [*DESCRIPTION_FILES, *WEIGHT_FILES])
    if missing := _missing_weights(folder):
        raise ModelFilesError(f"{out_of_reach(name)}; {', '.join(missing)} was never fetched")
    check_files((path.name for path in folder.iterdir()), location)
    check_links(folder, location)
    check_weights(folder, location)
    return folder


def local_folder(location: str) -> Path | None:
    """The folder of an embedded or local model; None for a hub repository."""
    if location.startswith(EMBEDDED):
        folder = model_path(location.removeprefix(EMBEDDED))
        if not (folder / CONFIG).is_file():
            raise ModelFilesError(f"{location} is not in this installation; `synth embedded build` makes it")
        return folder
    if location.startswith(PACKAGE):
        return packaged_folder(location)
    path = Path(location).expanduser()
    if location and path.is_dir():
        return path.resolve()
    if REPOSITORY.fullmatch(location) and not location.startswith("."):
        return None
    raise ModelFilesError(
        f"{redact(location)!r} is no folder here, no hub repository (owner/name, owner/name@revision), and no name "
        "that `synth models` lists"
    )


def split_repository(location: str) -> tuple[str, str | None]:
    """Name and revision of "owner/name@revision"; no revision is the default branch."""
    match = REPOSITORY.fullmatch(location)
    if match is None:
        raise ModelFilesError(f"{redact(location)!r} is no hub repository (owner/name, or owner/name@revision)")
    return match["name"], match["revision"]


def check_files(names: Iterable[str], location: str) -> None:
    """Refuse a model by the names of its files: without safetensors, or with an adapter among them.

    Other weights would run code when they are read; an adapter would be loaded into the model unseen.
    """
    names = list(names)
    if ADAPTER_CONFIG in names:
        raise ModelFilesError(
            f"{location} has {ADAPTER_CONFIG}, an adapter, which would become part of the model unseen: merge it into "
            "the model, or name the folder of the base without it"
        )
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    found = (
        f"only pickles ({', '.join(pickles[:3])}), which can run code when they are read" if pickles else "no weights"
    )
    raise ModelFilesError(
        f"{location} has {found}; name a revision with safetensors (owner/name@revision), or convert it to safetensors"
    )


def check_description(folder: Path, location: str) -> None:
    """Refuse a folder whose files are damaged, implausible, outside the folder, or ask for code of their own.

    Raises:
        ModelFilesError: names the file, the field, and the remedy.
    """
    check_links(folder, location)
    check_description_files(folder, location)
    if not location.startswith(EMBEDDED):  # shipped with this package, and part of every run
        check_chat_templates(folder, location)


def fetch(name: str, revision: str | None, patterns: list[str], kind: Kind = "model") -> Path:
    """The hub cache's folder with files of a version, named by its commit; fetches only what is not there yet.

    Without a connection it is the version of that name that was fetched last, which may lack files.
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
        raise ModelFilesError(out_of_reach(name, kind)) from without_secrets(error)
    except HfHubHTTPError as error:
        raise ModelFilesError(remedy(name, error)) from without_secrets(error)
    except (HTTPError, OSError, ValueError) as error:
        kept = "run it again, what is complete is kept"
        raise ModelFilesError(f"{name} could not be fetched ({redact(str(error))}); {kept}") from without_secrets(error)


def _listed(name: str, revision: str | None) -> list[str] | None:
    """The file names of a repository; None without a connection, which the log says."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
        OfflineModeIsEnabled,
    )

    try:
        info = model_info(name, revision=revision)
    except HfHubHTTPError as error:
        raise ModelFilesError(remedy(name, error)) from without_secrets(error)
    except (OfflineModeIsEnabled, HTTPError):
        logging.getLogger(__name__).warning("%s: the hub is out of reach; what was fetched before is used", name)
        return None
    return [sibling.rfilename for sibling in info.siblings or []]


def _missing_weights(folder: Path) -> list[str]:
    """The safetensors that a folder should have and has not."""
    index = folder / INDEX
    if not index.is_file():
        return [] if any(folder.glob("*.safetensors")) else [SINGLE]
    return [shard for shard in indexed_names(index, str(folder)) if not (folder / shard).is_file()]


def out_of_reach(name: str, kind: Kind = "model") -> str:
    """What to do without a connection to the hub."""
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    otherwise = {
        "model": "name a local folder instead, or choose the tier cpu, whose models are shipped",
        "dataset": f"or download https://huggingface.co/datasets/{name} where you can and import the files",
    }
    return f"{name} is not on this machine and the hub is out of reach{offline}: connect, {otherwise[kind]}"


def remedy(name: str, error: "HfHubHTTPError") -> str:
    """What to do when the hub refuses."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return (
            f"{name} is gated: accept its licence at https://huggingface.co/{name} and set HF_TOKEN, "
            "or choose the preset qwen, which needs neither"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no such revision; see https://huggingface.co/{name}/commits"
    if isinstance(error, RepositoryNotFoundError):
        return f"{name} is not on the hub, or is private: see the spelling, or set HF_TOKEN to a token that may read it"
    status = getattr(error.response, "status_code", "no status")
    if status == 401:
        return f"{name}: the hub refuses the token (401); set HF_TOKEN to a valid one, or unset it for public models"
    return f"{name}: the hub answered {status}; try again later, or name a local folder"
