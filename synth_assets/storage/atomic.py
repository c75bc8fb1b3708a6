"""Atomic writes: a file is complete under its name or not there."""

import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

STALE_TEMPORARY_S = 3600.0

_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:63]


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it and rename it; nothing partial under `path`.

    OSError, also one that polars wrapped, is raised again with the path in it; the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, pl.exceptions.ComputeError) as error:
        number = error.errno if isinstance(error, OSError) else _system_error(error)
        if number is None:
            raise
        size = temporary.stat().st_size if temporary.exists() else 0
        raise OSError(number, f"{os.strerror(number)}; {size} bytes were written for {path}") from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name beside `path` that no other writer takes, and that `sweep_temporaries` knows when its writer is gone."""
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{time.monotonic_ns()}.tmp")


def _system_error(error: pl.exceptions.ComputeError) -> int | None:
    """The errno that polars wrapped while it wrote Parquet, or None where the computation itself failed."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def sweep_temporaries(folder: Path, older_than_s: float = STALE_TEMPORARY_S) -> int:
    """Remove what killed writers left in `folder`, at any depth; returns how many files.

    A file goes when its writer was a process of this machine and is gone, or when it is older than `older_than_s`.
    """
    if not folder.exists():
        return 0
    limit = time.time() - older_than_s
    stale = [p for p in folder.rglob(".*.tmp") if p.is_file() and (_writer_is_gone(p) or p.stat().st_mtime <= limit)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def _writer_is_gone(temporary: Path) -> bool:
    parts = temporary.name.split(".")
    if len(parts) < 5 or parts[-4] != _HOST or not parts[-3].isdecimal():
        return False
    try:
        os.kill(int(parts[-3]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def sync_folder_tree(folder: Path) -> None:
    """Have everything under `folder`, and itself, on disk."""
    for path in (*folder.rglob("*"), folder):
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
