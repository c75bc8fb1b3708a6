"""SQLite files of a home: detect damage before a library opens them, and copy those of a read-only home."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from synth_assets.storage.errors import StorageError

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
LOG_SUFFIXES = ("-wal", "-journal")  # to be replayed after a crash; SQLite recreates `-shm`
COPY_TRIES = 3
COPY_PAUSE_S = 0.2


def damaged(path: Path, cause: object) -> StorageError:
    """Return the error for a damaged database, with the remedy."""
    lost = (
        "earlier versions, scores and aliases are lost, and `synth run` registers the existing adapters again"
        if path.name == "mlflow.db"
        else "the history of runs and checks is lost, and tables and adapters stay"
    )
    return StorageError(
        f"{path} is damaged ({cause}): restore it from a backup of SYNTH_HOME, or move it away; then {lost}"
    )


def check_sqlite(path: Path) -> None:
    """Raise StorageError if a file is not a SQLite database or is truncated; an empty file is valid."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    size = path.stat().st_size
    if not size:
        return
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise damaged(path, "not a SQLite database")
    page_bytes = int.from_bytes(header[16:18]) if header[16:18] != b"\0\1" else 65_536
    is_counted = header[24:28] == header[92:96]  # the page count is valid only if both counters agree
    expected = page_bytes * int.from_bytes(header[28:32])
    if is_counted and size < expected:
        raise damaged(path, f"{size:,} bytes of {expected:,}")


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database that must not be opened in place, with its write-ahead log and journal.

    Raises:
        StorageError: the file is damaged, or a writer changed it during each attempt.
    """
    check_sqlite(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(COPY_TRIES):
        for suffix in ("", *LOG_SUFFIXES):
            file = source.with_name(source.name + suffix)
            if file.is_file():
                shutil.copyfile(file, target.with_name(target.name + suffix))
        if (problem := _problem(target)) is None:
            return
        time.sleep(COPY_PAUSE_S * (attempt + 1))
    raise damaged(source, problem)


def _problem(path: Path) -> str | None:
    try:
        with closing(sqlite3.connect(path)) as connection:
            result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if result == "ok" else str(result)
