"""Atomic writes: a file is complete under its final name or does not exist."""

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
    """Write to a temporary file beside `path` with `write`, sync it and rename it to `path`.

    On failure the temporary file is removed. OSError, including one wrapped by polars, is raised again with the path.
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
        raise OSError(number, f"{os.strerror(number)}; wrote {size} bytes of {path}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file of these bytes atomically. Raises OSError with the path, as `write_atomically` does."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    """Write a file of this text in UTF-8 atomically. Raises OSError with the path, as `write_atomically` does."""
    write_bytes(path, text.encode("utf-8"))


def temporary_beside(path: Path) -> Path:
    """Return a temporary name beside `path`, unique to this writer and recognised by `sweep_temporaries`."""
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{time.monotonic_ns()}.tmp")


def _system_error(error: pl.exceptions.ComputeError) -> int | None:
    """Return the errno of an OSError wrapped by polars, or None if the computation itself failed."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def sweep_temporaries(folder: Path, older_than_s: float = STALE_TEMPORARY_S) -> int:
    """Remove temporary files of killed writers in `folder`, recursively; return the number of files.

    A file is removed if its writer was a process of this machine that is gone, or if it is older than `older_than_s`.
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
    """Sync a folder and everything in it to disk."""
    for path in (*folder.rglob("*"), folder):
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
