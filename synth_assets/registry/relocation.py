"""Relocation of a home: rewrite the artifact addresses in its MLflow database.

MLflow stores an absolute address with each experiment, run, logged model and model version, so that a copied or moved
home would read and write the artifacts of the original. The addresses of the project's own experiments tell where the
home was when its database was last opened. If it has moved since, every address below the old path is rewritten in one
transaction. The database always holds ordinary `file:` addresses, so that MLflow reads it without this package.
"""

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from synth_assets.storage.sqlite_files import check_sqlite, damaged

ARTIFACTS = "mlartifacts"
BUSY_S = 300.0
DEFAULT_EXPERIMENT = 0


def relocate(
    database: Path,
    home: Path,
    experiments: Sequence[str],
    lock: Callable[[str], AbstractContextManager[None]],
    *,
    writable: bool = True,
) -> bool:
    """Rewrite the addresses in `database` below an earlier path of `home`; return whether there were any.

    Args:
        database: MLflow's SQLite file; nothing happens if it does not exist.
        home: current path of the home.
        experiments: names of the experiments whose artifacts are in `home`.
        lock: holds a named lock against other processes of the same home.
        writable: whether artifacts left at the old path may be copied into `home`.

    Raises:
        StorageError: the file is damaged.
    """
    if not database.is_file() or not _outdated(database, home, experiments):
        return False
    with lock("relocation"):
        try:
            return _rewritten(database, home, experiments, writable)
        except sqlite3.DatabaseError as error:
            raise damaged(database, error) from error


def _outdated(database: Path, home: Path, experiments: Sequence[str]) -> bool:
    check_sqlite(database)
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
            return bool(_earlier_roots(connection, home, experiments)) or _default_is_elsewhere(connection, home)
    except sqlite3.DatabaseError as error:
        raise damaged(database, error) from error


def _rewritten(database: Path, home: Path, experiments: Sequence[str], writable: bool) -> bool:
    with closing(sqlite3.connect(database, timeout=BUSY_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        roots = _earlier_roots(connection, home, experiments)
        for root in roots:
            if writable:
                _fetch_stray_artifacts(connection, root, home)
            count = sum(_replace_prefix(connection, *pair) for pair in _prefixes(root, home))
            logging.getLogger(__name__).info("home moved from %s to %s: rewrote %d addresses", root, home, count)
        if is_elsewhere := _default_is_elsewhere(connection, home):
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (f"{home.as_uri()}/{ARTIFACTS}/{DEFAULT_EXPERIMENT}", DEFAULT_EXPERIMENT),
            )
        connection.execute("COMMIT")
    return bool(roots) or is_elsewhere


def _earlier_roots(connection: sqlite3.Connection, home: Path, experiments: Sequence[str]) -> list[Path]:
    """Return the paths, other than the current one, in the artifact locations of `experiments`."""
    if not _has_experiments(connection):
        return []
    placeholders = ", ".join("?" * len(experiments))
    rows = connection.execute(
        f"SELECT DISTINCT artifact_location FROM experiments WHERE name IN ({placeholders})",  # noqa: S608 - placeholders
        tuple(experiments),
    )
    folders = [folder for (location,) in rows if (folder := _folder(location)) and folder.name == ARTIFACTS]
    return sorted({folder.parent for folder in folders if not _is_same(folder.parent, home)})


def _default_is_elsewhere(connection: sqlite3.Connection, home: Path) -> bool:
    """Return whether MLflow's experiment `Default`, still empty, has its artifacts outside the home.

    MLflow uses the working directory of the process that created the database.
    """
    if not _has_experiments(connection):
        return False
    row = connection.execute(
        "SELECT artifact_location FROM experiments WHERE experiment_id = ? "
        "AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.experiment_id = experiments.experiment_id)",
        (DEFAULT_EXPERIMENT,),
    ).fetchone()
    folder = _folder(row[0]) if row else None
    return folder is not None and not any(_is_same(parent, home) for parent in folder.parents)


def _has_experiments(connection: sqlite3.Connection) -> bool:
    names = ("experiments", "runs")
    row = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?)", names)
    return row.fetchone()[0] == len(names)


def _folder(location: str | None) -> Path | None:
    """Return the folder of a `file:` address or an absolute path; None for other addresses."""
    if location and location.startswith("/"):
        return Path(location)
    parts = urlsplit(location or "")
    return Path(url2pathname(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def _is_same(root: Path, home: Path) -> bool:
    """Return whether two paths are the same folder, such as through a symbolic link or a second mount."""
    return root == home or (root.is_dir() and home.is_dir() and os.path.samefile(root, home))


def _prefixes(root: Path, home: Path) -> Iterator[tuple[str, str]]:
    """Yield each form of an address of `root` with its replacement."""
    yield root.as_uri(), home.as_uri()
    yield str(root), str(home)


def _replace_prefix(connection: sqlite3.Connection, old: str, new: str) -> int:
    """Replace a path prefix in every text column of every table; return the number of cells."""
    count = 0
    for table, column in _text_columns(connection):
        cell, length = f'"{column}"', len(old)
        count += connection.execute(
            f'UPDATE "{table}" SET {cell} = ? || substr({cell}, ?) '  # noqa: S608 - names from the schema itself
            f"WHERE substr({cell}, 1, ?) = ? AND substr({cell}, ?, 1) IN ('', '/')",
            (new, length + 1, length, old, length + 1),
        ).rowcount
    return count


def _text_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return (table, column) of the text columns that are neither generated nor part of a primary key."""
    return connection.execute(
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_xinfo(m.name) c "
        "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND c.hidden = 0 AND c.pk = 0 "
        "AND (upper(c.type) LIKE '%CHAR%' OR upper(c.type) LIKE '%TEXT%' OR upper(c.type) LIKE '%CLOB%')"
    ).fetchall()


def _fetch_stray_artifacts(connection: sqlite3.Connection, root: Path, home: Path) -> None:
    """Copy artifacts that earlier versions of this package left at the old path and that are missing here."""
    if not (root / ARTIFACTS).is_dir():
        return
    addresses = connection.execute(
        "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM logged_models"
    ).fetchall()
    for folder in filter(None, (_folder(address) for (address,) in addresses)):
        if root not in folder.parents or not folder.is_dir():
            continue
        target = home / folder.relative_to(root)
        if target.exists():
            continue
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(folder, draft)
        draft.replace(target)
        logging.getLogger(__name__).warning("copied artifacts from %s to %s", folder, target)
