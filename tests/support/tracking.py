"""MLflow databases for tests: creating one takes seconds, copying it none."""

import sqlite3
from contextlib import closing
from pathlib import Path

from resources.storage import SynthHome
from resources.tracking import MlflowTracking


def tracking_of(home: Path) -> MlflowTracking:
    """Return the tracking resource of a home."""
    return MlflowTracking(home=SynthHome(folder=str(home)))


def new_database(folder: Path) -> Path:
    """Create the database of a home in `folder`; return its path."""
    tracking_of(folder).initialise()
    return folder / "mlflow.db"


def copy_database(database: Path, home: Path) -> Path:
    """Create a home with a copy of a database and an artifact folder of its own; return the home."""
    home.mkdir()
    with closing(sqlite3.connect(database)) as original, closing(sqlite3.connect(home / "mlflow.db")) as copy:
        original.backup(copy)
        copy.execute("UPDATE experiments SET artifact_location = ?", [(home / "mlartifacts").as_uri()])
        copy.commit()
    return home
