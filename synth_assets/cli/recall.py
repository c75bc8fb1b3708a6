"""`synth recall`: a row taken back from every dataset and model that it touched, or let in again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
import polars as pl
from rich.console import Console

from resources.deployment import person
from synth_assets.cli.rows import DATASETS, entry, table_rows, trained_versions
from synth_assets.cli.run import execute, pipeline_job_in_process
from synth_assets.cli.session import Session
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import model_versions, taint
from synth_assets.reporting.escaping import metadata_line, storable, terminal_line
from synth_assets.stages.promotion.service_history import serving_version
from synth_assets.storage.lineage import TAINTED, ModelVersion, fates_of, one_row, recalled_rows_of
from synth_assets.storage.retractions import Recall, add_recalls, recall_reasons, recalls_in_force, taint_text
from synth_assets.text.redaction import holds_secret

ASSET = "recalled_rows"
TAG_CHARACTERS = 4_000  # of a taint; some databases take no more in a tag


@dataclass(frozen=True)
class Request:
    """What a person asks: which rows, why, whether to let them in again, and whether only to look."""

    rows: Sequence[str]
    reason: str | None = None
    undo: bool = False
    dry_run: bool = False


def recall(session: Session, request: Request, console: Console) -> None:
    """Record the recall, tag every version that it touches, and let Dagster know what is stale.

    Raises:
        LineageError: a row is unknown; nothing was recorded.
        ValueError: there is no reason.
        TrackingError: MLflow stays unreachable; the recall is recorded, and the same command again tags the versions.
    """
    manifests = session.storage.manifests()
    row_ids = list(dict.fromkeys(one_row(manifests, given) for given in request.rows))
    if not request.undo and not (request.reason or "").strip():
        raise ValueError('say why: --reason "it names a person"; the registry and the rejected row will show it')
    if holds_secret(request.reason or ""):
        raise ValueError("--reason holds what looks like a secret; it is stored and shown: describe the secret instead")
    versions = model_versions(session.tracker) if session.tracker else []
    touched = trained_versions(manifests, row_ids, versions)
    console.print(reach_text(session, row_ids, touched), markup=False)
    if request.dry_run:
        return
    with session.tracking.lock("recalls"):
        _record(session, row_ids, request)
        if session.tracker:
            tag_versions(session, session.tracker, versions)
    if not execute(session, pipeline_job_in_process, {}, {"trigger": "synth", "by": person()}, console, [_key()]):
        raise RuntimeError(f"the recall is in force, but {ASSET} could not be materialised: do so in the UI (synth ui)")
    console.print(_afterwards(session, request, touched), markup=False)


def reach_text(session: Session, row_ids: Sequence[str], touched: Sequence[ModelVersion]) -> str:
    """Everything that rows went into: present datasets, older versions of them, adapters and aliases."""
    present = [
        f"{asset} ({count})"
        for asset in DATASETS
        if (count := sum(len(table_rows(session.home, asset, row_id)) for row_id in row_ids))
    ]
    fates = fates_of(session.storage.manifests(), row_ids).filter(pl.col("asset").is_in(DATASETS))
    ever = fates.select("asset", "data_version").n_unique()
    lines = [
        entry("rows", ", ".join(row_ids)),
        entry("datasets", f"{', '.join(present) or 'in none of the present ones'}; {ever} versions of tables saw them"),
        entry("models", ", ".join(version.title for version in touched) or "none was trained on them"),
    ]
    for row_id in row_ids:
        for row in table_rows(session.home, "rejected_instructions", row_id):
            lines.append(
                entry("note", f"{row_id} is rejected already ({row['reason']}: {terminal_line(row['detail'])})")
            )
    return "\n".join(lines)


def tag_versions(session: Session, tracker: MlflowTracker, versions: Sequence[ModelVersion]) -> None:
    """Bring the tag of every version in line with the recalls in force."""
    recalls = recalls_in_force(session.storage.recalls())
    for version in versions:
        told = metadata_line(
            taint_text(recalled_rows_of(session.storage.manifests(), version, recalls)), TAG_CHARACTERS
        )
        if told and version.tags.get(TAINTED) != told:
            tracker.tag_version(version.version, {TAINTED: told})
        elif not told and TAINTED in version.tags:
            tracker.remove_tag(version.version, TAINTED)


def recalls_text(session: Session) -> str:
    """The rows that are out now, with who took them back and why."""
    recalls = recalls_in_force(session.storage.recalls())
    if recalls.is_empty():
        return "no row is recalled"
    return "\n".join(f"{row_id} {terminal_line(why)}" for row_id, why in recall_reasons(recalls).items())


def champion_taint(session: Session) -> str:
    """What a person must know about the version that serves: that it is tainted, and the remedy; else nothing."""
    if session.tracker is None or recalls_in_force(session.storage.recalls()).is_empty():
        return ""
    serving = serving_version(session.tracker)
    tainted = version_taint(session, session.tracker, serving) if serving else ""
    if not tainted:
        return ""
    return "\n".join(
        [
            entry("TAINTED", f"version {serving} serves and was trained on {terminal_line(tainted, 1_000)}"),
            entry("remedy", "`synth run` retrains without it; `synth rollback` goes back to a clean version before it"),
        ]
    )


def version_taint(session: Session, tracker: MlflowTracker, version: str) -> str:
    """Which recalled rows a version was trained on; a version of nobody's training tells by its tag alone."""
    try:
        return taint(tracker, session.storage, version)
    except KeyError:
        return tracker.version_tags(version).get(TAINTED, "")


def _record(session: Session, row_ids: Sequence[str], request: Request) -> None:
    """Only what changes something: a row that is out is not recalled twice."""
    out = set(recalls_in_force(session.storage.recalls())["row_id"])
    action = "let in" if request.undo else "recalled"
    at, by = datetime.now(UTC).isoformat(timespec="seconds"), person()
    changed = [row_id for row_id in row_ids if (row_id in out) == request.undo]
    reason = storable(request.reason or "let in again").strip()
    add_recalls(session.storage.recalls(), [Recall(row_id, action, reason, by, at) for row_id in changed])


def _afterwards(session: Session, request: Request, touched: Sequence[ModelVersion]) -> str:
    if request.undo:
        return entry("next", "synth run: the rows are judged again like all others")
    count = f"{len(touched)} version{'' if len(touched) == 1 else 's'}"
    lines = [
        entry("done", f"{count} tagged `{TAINTED}` in MLflow; promotion refuses them; the rows pass no filter"),
        champion_taint(session),
        entry("next", "synth run: filters and trains again without the rows"),
        entry("undo", f"synth recall --undo {' '.join(request.rows)}"),
    ]
    return "\n".join(line for line in lines if line)


def _key() -> dg.AssetKey:
    return dg.AssetKey(ASSET)
