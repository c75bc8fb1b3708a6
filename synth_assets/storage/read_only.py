"""Read-only homes: detect them, and copy their databases to where libraries can open them.

MLflow and Dagster write to their SQLite files even when they only read. Tables, records and artifacts are read in
place.
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
"""MLflow's database, and those of Dagster except the logs of single runs."""

STAGES = ("adapters", "imports", "locks", "manifests", "mlartifacts", "shards", "tables")
FOLDERS = (".", "dagster", "dagster/history", "dagster/history/runs", "dagster/schedules", *STAGES)


def unwritable(home: Path) -> Path | None:
    """Return the first folder or database of a home that this process cannot write, or None."""
    for name in (*FOLDERS, *DATABASES):
        path = home / name
        if path.exists() and not os.access(path, os.W_OK):
            return path
    return None


def check_databases(home: Path) -> None:
    """Raise StorageError if a database of the home is damaged."""
    for name in DATABASES:
        if (home / name).is_file():
            check_sqlite(home / name)


def copied_databases(home: Path) -> Path:
    """Copy the databases of a home to a temporary folder that is removed at exit.

    Raises:
        StorageError: a database is damaged.
    """
    folder = Path(tempfile.mkdtemp(prefix="synth-read-only-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in DATABASES:
        if (home / name).is_file():
            copy_sqlite(home / name, folder / name)
    (folder / "dagster").mkdir(exist_ok=True)
    (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n", "utf-8")
    return folder
