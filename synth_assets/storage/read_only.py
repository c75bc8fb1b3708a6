"""Homes that can only be read: find out, and copy their databases to where libraries may open them.

MLflow and Dagster write into their SQLite files when they open them, even to read. Tables, records and artifacts are
read where they are.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from synth_assets.storage.sqlite_files import check_sqlite, copy_sqlite

DATABASES = (
    "mlflow.db",
    "dagster/history/runs.db",
    "dagster/history/runs/index.db",
    "dagster/schedules/schedules.db",
)
"""Those of Dagster that hold more than the log of one run."""

STAGES = ("adapters", "imports", "locks", "manifests", "mlartifacts", "shards", "tables")
FOLDERS = (".", "dagster", "dagster/history", "dagster/history/runs", "dagster/schedules", *STAGES)


def unwritable(home: Path) -> Path | None:
    """The first folder or database of an existing home that this process may not write; None where it may."""
    for name in (*FOLDERS, *DATABASES):
        path = home / name
        if path.exists() and not os.access(path, os.W_OK):
            return path
    return None


def check_databases(home: Path) -> None:
    """Raise StorageError where a database of the home is torn."""
    for name in DATABASES:
        if (home / name).is_file():
            check_sqlite(home / name)


def copied_databases(home: Path) -> Path:
    """Copy the databases of a home to a temporary folder, which goes when this process ends.

    Raises:
        StorageError: one of them is damaged.
    """
    folder = Path(tempfile.mkdtemp(prefix="synth-read-only-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in DATABASES:
        if (home / name).is_file():
            copy_sqlite(home / name, folder / name)
    (folder / "dagster").mkdir(exist_ok=True)
    (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n", "utf-8")
    return folder
