"""Log generation, filtering, pairs and decisions in MLflow, from what their materialisations recorded in Dagster."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster import EventLogRecord

from resources.check_results import materialisation_of
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.retry import TrackingError
from synth_assets.registry.stage_runs import StageRun, log_stage
from synth_assets.schemas.preference_rounds import ROUNDS

STAGES = (
    "raw_instructions",
    "filtered_instructions",
    "filtered_preferences",
    *(name for round_ in ROUNDS for name in (round_.candidates, round_.pairs)),
)
"""Assets with a run of their own; `dataset_card` logs the run of `sft_dataset`."""

TABLES = ("rejected_by_reason", "pass_rates")  # Markdown metadata that become artifacts


def log_stages(context: dg.AssetExecutionContext, tracker: MlflowTracker, versions: Mapping[str, str]) -> None:
    """Log a run for each of `versions` that belongs to STAGES and has none yet; a failing MLflow is a warning.

    Args:
        context: the running asset.
        tracker: the tracker.
        versions: data versions as returned by `upstream_versions`.
    """
    for name, version in versions.items():
        if name.partition("@")[0].partition("[")[0] not in STAGES:
            continue
        record = materialisation_of(context.instance, name, version)
        if record is None or (stage := stage_of(name.partition("@")[0], version, record)) is None:
            continue
        if not log_or_warn(context, tracker, stage):
            return


def log_or_warn(context: dg.AssetExecutionContext, tracker: MlflowTracker, stage: StageRun) -> str:
    """Log a stage and return the run id; empty, with a warning, if MLflow fails: the run is only for reading."""
    from mlflow.exceptions import MlflowException

    try:
        return log_stage(tracker, stage)
    except (MlflowException, TrackingError, OSError) as error:
        context.log.warning(f"MLflow has no run of {stage.name}: {error}")
        return ""


def stage_of(name: str, version: str, record: EventLogRecord) -> StageRun | None:
    """Return the run of a materialisation; None if it recorded no settings."""
    event = record.asset_materialization
    spec = _json(event.metadata.get("spec")) if event else None
    if event is None or not isinstance(spec, dict):
        return None
    tags = {"dagster.run_id": record.run_id, "dagster.asset_key": event.asset_key.to_user_string()}
    if event.partition:
        tags |= {"dagster.partition": event.partition, "batch": event.partition}
    return StageRun(
        name,
        version,
        numbers=_numbers(event.metadata),
        parameters=spec,
        tags=tags,
        texts=_texts(event.metadata),
        finished_ms=int(record.timestamp * 1000),
    )


def _numbers(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, float]:
    """Return the numeric metadata and the number of dropped rows by reason; "dagster/row_count" becomes "rows"."""
    kinds = (dg.IntMetadataValue, dg.FloatMetadataValue)
    numbers = {
        "rows" if name == "dagster/row_count" else name: float(entry.value)
        for name, entry in metadata.items()
        if isinstance(entry, kinds) and entry.value is not None
    }
    for row in _json(metadata.get("dropped")) or []:
        numbers[f"dropped/{row['of']}/{row['reason']}"] = float(row["count"])
    return numbers


def _texts(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, str]:
    return {
        f"{name}.md": entry.value
        for name, entry in metadata.items()
        if name in TABLES and isinstance(entry, dg.MarkdownMetadataValue) and entry.value
    }


def _json(entry: dg.MetadataValue | None) -> Any:  # noqa: ANN401 - any JSON value
    return entry.value if isinstance(entry, dg.JsonMetadataValue) else None
