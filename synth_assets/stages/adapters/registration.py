"""Register trained adapters with their artifacts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from synth_assets.registry.flavour import Flavour
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.schemas.records import AdapterRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.adapters.training_artifacts import logged_curve, write_curves
from synth_assets.storage.manifests import folder_hash
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.methods import method_of
from synth_assets.training.plan import TrainingRequest

SELECTION_COLUMNS = ("pair_id", "source", "batch", "group", "score", "chosen_reward", "rejected_reward", "margin")
CURVES = "training"  # folder of the run's artifacts


def adapter_data_version(record: AdapterRecord, stored: StoredAdapter | None) -> str:
    """Return the hash of an adapter's files, or of the failure if there are none."""
    return fingerprint(record.name, record.failure) if stored is None else folder_hash(stored.folder)


def row_manifest(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the row manifest of a training: each row's split, and the columns that it was selected by."""
    columns = [name for name in SELECTION_COLUMNS if name in rows.columns]
    return rows.select("row_id", pl.col("split").alias("fate"), *columns)


def run_tags(request: TrainingRequest, tier: str) -> dict[str, str]:
    """Return the tags of a training's run in MLflow: method, role and hardware tier."""
    return {"method": method_of(request.spec).key, "role": request.role, "tier": tier}


def register_adapter(
    tracker: MlflowTracker,
    record: AdapterRecord,
    stored: StoredAdapter,
    served: tuple[Mapping[str, str], Flavour],
    figures: Path,
) -> AdapterRecord:
    """Register an adapter's complete files, attach its curves, and return the record with its run and version.

    Args:
        tracker: the model registry.
        record: record of the training.
        stored: the adapter.
        served: tags of the run, and the flavour that the version is loaded with.
        figures: folder for the figures of the curves.
    """
    run_id, version = tracker.log_training(record, stored.folder, logged_curve(stored.outcome), *served)
    registered = replace(record, mlflow_run_id=run_id, model_version=version)
    write_curves(registered, stored.outcome, figures)
    tracker.attach(run_id, figures, CURVES)
    return registered
