"""Metadata of the materialisations of the stage adapters."""

from typing import Any

import dagster as dg
import polars as pl

from synth_assets.schemas.records import AdapterRecord
from synth_assets.stages.adapters.training_artifacts import curves_image
from synth_assets.training.adapter_store import StoredAdapter

MAX_SHOWN_EVENTS = 20


def adapter_metadata(record: AdapterRecord, stored: StoredAdapter) -> dict[str, Any]:
    """Return the metadata of a stored adapter: its measurements, settings and curves."""
    outcome = stored.outcome
    return {
        "final_loss": record.final_loss,
        "tokens": outcome.tokens,
        "tokens_per_s": record.tokens_per_s,
        "steps": outcome.steps,
        "seconds": record.seconds,
        "cost_usd": record.cost_usd,
        "trainable_parameters": record.trainable_parameters,
        "total_parameters": record.total_parameters,
        f"peak_memory_bytes_{record.peak_memory_kind}": record.peak_memory_bytes,
        "fill_rate": outcome.fill_rate,
        "host_peak_bytes": outcome.host_peak_bytes,
        "batch": f"{outcome.batch_size} rows x {outcome.accumulation}",
        "weights_of_step": outcome.best_step or outcome.steps,
        **{f"predicted_{name}": value for name, value in outcome.predicted.items()},
        **{f"validation_{name}": value for name, value in outcome.validation.items()},
        "phases": dg.MetadataValue.json(outcome.phases),
        "events": dg.MetadataValue.json(outcome.events[-MAX_SHOWN_EVENTS:]),
        "trained_before": stored.reused,
        "spec": dg.MetadataValue.json(dict(record.spec)),
        "record": dg.MetadataValue.json({"fingerprint": record.fingerprint, "path": record.path}),
        **{name: dg.MetadataValue.md(image) for name, image in curves_image(record, outcome).items()},
    }


def registration_metadata(record: AdapterRecord, run_url: str, version_url: str) -> dict[str, Any]:
    """Return the metadata of a registered adapter: its run and its version in MLflow."""
    return {
        "mlflow_run_id": record.mlflow_run_id,
        "model_version": record.model_version,
        "mlflow_run": dg.MetadataValue.url(run_url),
        "mlflow_version": dg.MetadataValue.url(version_url),
        "lineage": f"synth trace {record.model_version}",
    }


def reference_metadata(table: pl.DataFrame, failure: str) -> dict[str, Any]:
    """Return the metadata of REFERENCE_LOGPROBS, with the failure of the training that they depend on, if any."""
    means = table.select(pl.col("chosen_logprob", "rejected_logprob").mean()).row(0, named=True)
    return {
        "dagster/row_count": table.height,
        **{f"mean_{name}": value for name, value in means.items() if value is not None},
        **({"failure": failure} if failure else {}),
    }
