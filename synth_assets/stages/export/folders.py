"""Write export folders: atomic, resumable, never over foreign files, and only where the disk has room."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from synth_assets.schemas.serialization import from_json, to_json
from synth_assets.stages.export.errors import ExportError
from synth_assets.storage.atomic import sync_folder_tree
from synth_assets.storage.blocks import Progress
from synth_assets.storage.disk import free_bytes, nearest_existing
from synth_assets.storage.manifests import MANIFEST, ManifestError, read_manifest, write_manifest

MADE_BY = "synth export"
GB = 1e9
DISK_MARGIN = 1.1  # over the computed size, for metadata of files and of the file system

R = TypeVar("R")


def export_folder(
    target: Path, request: Mapping[str, Any], kind: type[R], make: Callable[[Path, Path], R], progress: Progress
) -> R:
    """Return the result of an export, making its folder unless `target` already holds it unchanged.

    Args:
        target: the folder. It appears complete or not at all; an earlier export in it is replaced.
        request: JSON values that determine the content.
        kind: the dataclass of the result.
        make: writes the files into an empty folder, the first argument, and returns the result. The second argument
            is a folder for parts that a killed export leaves to the next one.
        progress: gets one line for an unchanged export.

    Raises:
        ExportError: `target` holds foreign files, or another export is writing to it.
    """
    if (stored := finished(target, request, kind)) is not None:
        progress(f"{target.name} is unchanged")
        return stored
    with work_folder(target) as work:
        new = work / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        result = make(new, work)
        facts = {"made_by": MADE_BY, "request": dict(request), "result": json.loads(to_json(result))}
        write_manifest(new, facts)
        replace_folder(new, target)
    return result


def finished(target: Path, request: Mapping[str, Any], kind: type[R]) -> R | None:
    """Return the result of the complete, unchanged export of this request in `target`, or None."""
    try:
        facts = read_manifest(target) if (target / MANIFEST).is_file() else {}
    except ManifestError:
        return None
    if facts.get("request") != json.loads(json.dumps(dict(request))):
        return None
    return from_json(kind, json.dumps(facts["result"]))


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Yield the hidden folder beside `target` for unfinished parts; it is removed at the end, unless killed.

    Raises:
        ExportError: `target` holds foreign files, or another export is writing to it.
    """
    check_replaceable(target)
    work = target.with_name(f".{target.name}.export")
    work.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(work / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise ExportError(f"another export is writing to {target}: wait for it, or choose another folder") from None
    try:
        yield work
        shutil.rmtree(work)
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        lock.release()


def check_replaceable(target: Path) -> None:
    """Raise ExportError unless the folder is missing, empty, or an unchanged earlier export."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        if target.is_dir() and (target / MANIFEST).is_file() and read_manifest(target).get("made_by") == MADE_BY:
            return
    except ManifestError as error:
        raise ExportError(f"{target} was changed since it was exported ({error}): choose another folder") from error
    raise ExportError(f"{target} has files that are no export of this project: choose another folder")


def replace_folder(made: Path, target: Path) -> None:
    """Rename a finished folder to `target`; an earlier export is moved aside first and deleted last."""
    sync_folder_tree(made)
    old = made.with_name("replaced")
    if target.exists():
        target.replace(old)
    made.replace(target)


def check_disk(folder: Path, needed_bytes: float, what: str) -> None:
    """Raise ExportError unless the disk of a folder has room for an export.

    Args:
        folder: a folder that may not exist yet.
        needed_bytes: size of the files.
        what: what is written, for the message.
    """
    needed, free = needed_bytes * DISK_MARGIN, free_bytes(folder)
    if needed > free:
        raise ExportError(
            f"{what} needs {needed / GB:.1f} GB, {nearest_existing(folder)} has {free / GB:.1f} GB free: "
            "free space, or export to another disk"
        )


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link of a file, or a copy where the file system has no links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
