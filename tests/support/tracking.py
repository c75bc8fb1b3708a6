"""MLflow databases for tests: creating one takes seconds, copying it none."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.schemas.records import AdapterRecord
from synth_assets.schemas.serialization import fingerprint
from tests.support.records import make_adapter


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


CURVE = [{"step": 1, "loss": 2.0, "learning_rate": 1e-4}, {"step": 2, "loss": 1.5, "learning_rate": 5e-5}]
TAGS = {"tier": "cpu", "batch": "2026-W47", "dagster.run_id": "run-1"}


def adapter(folder: Path, name: str = "lora_adapter", weight: float = 1.0) -> AdapterRecord:
    """A record and a complete little adapter in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.full((2, 2), weight, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    return make_adapter(
        name=name,
        fingerprint=fingerprint(name, weight),
        path=f"adapters/{folder.name}",
        manifest_sha256="m",
        base_revision="r1",
        spec={"rank": 8, "learning_rate": 2e-4},
        data_versions={"sft_dataset": "abc", "raw_instructions[2026-W47]": "def"},
        trainable_parameters=10,
        total_parameters=100,
        peak_memory_bytes=1000,
        tokens_per_s=12.5,
        seconds=3.0,
        final_loss=1.5,
    )


def register(home: Path, folder: Path, weight: float) -> None:
    record = adapter(folder, weight=weight)
    tracking_of(home).tracker().log_training(record, folder, CURVE, TAGS)
