"""Temporary folders that go with their process: at its end, or when the next one starts if it was killed."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from filelock import FileLock, Timeout

from synth_assets.storage.atomic import STALE_TEMPORARY_S

PREFIX = ".scratch-"
CREATION_LOCK = ".scratch.lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Create a temporary folder in `parent`, after removing those of killed processes.

    Its process holds a lock beside the folder, which the system releases even if the process is killed. So a folder in
    use is never removed, whatever its age and whichever machine uses it.
    """
    with FileLock(parent / CREATION_LOCK):
        _sweep(parent)
        temporary = tempfile.TemporaryDirectory(dir=parent, prefix=PREFIX)
        lock = FileLock(_lock_of(Path(temporary.name)))
        lock.acquire()
    try:
        yield Path(temporary.name)
    finally:
        temporary.cleanup()
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(parent: Path) -> None:
    """Remove folders whose lock nobody holds; one without a lock, of an earlier release, once it is stale."""
    limit = time.time() - STALE_TEMPORARY_S
    for folder in [path for path in parent.glob(f"{PREFIX}*") if path.is_dir()]:
        if not _lock_of(folder).is_file() and folder.stat().st_mtime <= limit:
            rmtree(folder, ignore_errors=True)
    for path in parent.glob(f"{PREFIX}*.lock"):
        try:
            with FileLock(path, timeout=0):
                rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except Timeout:
            continue
