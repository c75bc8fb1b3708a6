"""`synth recall`: remove rows from all future datasets and tag the models trained on them, or undo a recall."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from resources.deployment import person
from synth_assets.cli.execution import JobRun, execute
from synth_assets.cli.rows import DATASETS, entry, table_rows, trained_versions
from synth_assets.cli.run import pipeline_job_in_process
from synth_assets.cli.session import Session
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import model_versions, taint
from synth_assets.reporting.escaping import metadata_line, storable, terminal_line
from synth_assets.stages.promotion.service_history import serving_version
from synth_assets.storage.lineage import TAINTED, ModelVersion, fates_of, one_row, recalled_rows_of
from synth_assets.storage.retractions import Recall, add_recalls, recall_reasons, recalls_in_force, taint_text
from synth_assets.text.redaction import holds_secret

ASSET = "recalled_rows"
MAX_TAG_CHARACTERS = 4_000  # some databases limit the length of a tag


@dataclass(frozen=True)
class Request:
    """Arguments of the command: rows, reason, whether to undo, and whether to only show the effect."""

    rows: Sequence[str]
    reason: str | None = None
    undo: bool = False
    dry_run: bool = False


def recall(session: Session, request: Request, console: RedactingConsole) -> None:
    """Record the recall, tag the affected model versions, and mark the stale assets in Dagster.

    Raises:
        LineageError: a row is unknown; nothing was recorded.
        ValueError: the reason is missing.
        TrackingError: MLflow is unreachable. The recall is recorded; run the command again to tag the versions.
    """
    manifests = session.storage.manifests()
    row_ids = list(dict.fromkeys(one_row(manifests, prefix) for prefix in request.rows))
    if not request.undo and not (request.reason or "").strip():
        raise ValueError('a recall needs a reason, for example --reason "it names a person"')
    if holds_secret(request.reason or ""):
        raise ValueError("--reason must not contain a secret: it is stored and shown. Describe the secret instead")
    versions = model_versions(session.tracker) if session.tracker else []
    affected = trained_versions(manifests, row_ids, versions)
    console.print(reach_text(session, row_ids, affected), markup=False)
    if request.dry_run:
        return
    with session.tracking.lock("recalls"):
        _record(session, row_ids, request)
        if session.tracker:
            tag_versions(session, session.tracker, versions)
    tags = {"trigger": "synth", "by": person()}
    if not execute(session, JobRun(pipeline_job_in_process, {}, tags, [dg.AssetKey(ASSET)]), console):
        raise RuntimeError(f"the recall is recorded, but {ASSET} failed; run it in the UI (`synth ui`)")
    console.print(_summary(session, request, affected), markup=False)


def reach_text(session: Session, row_ids: Sequence[str], affected: Sequence[ModelVersion]) -> str:
    """Describe everything that contains the rows: current datasets, older versions of them, and models."""
    current = [
        f"{asset} ({count})"
        for asset in DATASETS
        if (count := sum(len(table_rows(session.home, asset, row_id)) for row_id in row_ids))
    ]
    fates = fates_of(session.storage.manifests(), row_ids).filter(pl.col("asset").is_in(DATASETS))
    table_versions = fates.select("asset", "data_version").n_unique()
    lines = [
        entry("rows", ", ".join(row_ids)),
        entry("datasets", f"{', '.join(current) or 'none of the current ones'}; {table_versions} versions of tables"),
        entry("models", ", ".join(version.title for version in affected) or "no model was trained on them"),
    ]
    for row_id in row_ids:
        for row in table_rows(session.home, "rejected_instructions", row_id):
            lines.append(
                entry("note", f"{row_id} is already rejected ({row['reason']}: {terminal_line(row['detail'])})")
            )
    return "\n".join(lines)


def tag_versions(session: Session, tracker: MlflowTracker, versions: Sequence[ModelVersion]) -> None:
    """Update the tag TAINTED of every version to the active recalls."""
    recalls = recalls_in_force(session.storage.recalls())
    for version in versions:
        text = metadata_line(
            taint_text(recalled_rows_of(session.storage.manifests(), version, recalls)), MAX_TAG_CHARACTERS
        )
        if text and version.tags.get(TAINTED) != text:
            tracker.tag_version(version.version, {TAINTED: text})
        elif not text and TAINTED in version.tags:
            tracker.remove_tag(version.version, TAINTED)


def recalls_text(session: Session) -> str:
    """List the recalled rows with the person and the reason."""
    recalls = recalls_in_force(session.storage.recalls())
    if recalls.is_empty():
        return "no row is recalled"
    return "\n".join(f"{row_id} {terminal_line(reason)}" for row_id, reason in recall_reasons(recalls).items())


def champion_taint(session: Session) -> str:
    """Return a warning with the remedy if the champion is tainted; empty otherwise."""
    if session.tracker is None or recalls_in_force(session.storage.recalls()).is_empty():
        return ""
    serving = serving_version(session.tracker)
    tainted = version_taint(session, session.tracker, serving) if serving else ""
    if not tainted:
        return ""
    return "\n".join(
        [
            entry("TAINTED", f"version {serving} serves and was trained on {terminal_line(tainted, 1_000)}"),
            entry("remedy", "`synth run` retrains without the rows; `synth rollback` restores a clean version"),
        ]
    )


def version_taint(session: Session, tracker: MlflowTracker, version: str) -> str:
    """Return the recalled rows that a version was trained on; from its tag if it has no training record."""
    try:
        return taint(tracker, session.storage, version)
    except KeyError:
        return tracker.version_tags(version).get(TAINTED, "")


def _record(session: Session, row_ids: Sequence[str], request: Request) -> None:
    """Append the recalls to the log, without rows that are already in the requested state."""
    recalled = set(recalls_in_force(session.storage.recalls())["row_id"])
    action = "let in" if request.undo else "recalled"
    at, by = datetime.now(UTC).isoformat(timespec="seconds"), person()
    changed = [row_id for row_id in row_ids if (row_id in recalled) == request.undo]
    reason = storable(request.reason or "let in again").strip()
    add_recalls(session.storage.recalls(), [Recall(row_id, action, reason, by, at) for row_id in changed])


def _summary(session: Session, request: Request, affected: Sequence[ModelVersion]) -> str:
    if request.undo:
        return entry("next", "synth run: filters the rows again like all others")
    count = f"{len(affected)} version{'' if len(affected) == 1 else 's'}"
    lines = [
        entry("done", f"{count} tagged `{TAINTED}` in MLflow and excluded from promotion; the filter rejects the rows"),
        champion_taint(session),
        entry("next", "synth run: filters and trains again without the rows"),
        entry("undo", f"synth recall --undo {' '.join(request.rows)}"),
    ]
    return "\n".join(line for line in lines if line)
