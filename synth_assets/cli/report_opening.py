"""The opening of the last comparison's report: when, from what, who serves, and what was decided and why."""

import datetime as dt
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg

from resources.deployment import PROJECT
from resources.storage import HOME_PAGES
from synth_assets.cli.registry import serving_line
from synth_assets.cli.session import Session
from synth_assets.reporting.page_parts import with_opening
from synth_assets.schemas.records import ChampionRecord
from synth_assets.storage.atomic import write_text

DATASETS = (("sft_dataset", "instructions"), ("preference_pairs", "preference pairs"))


def write_opening(session: Session) -> None:
    """Write the opening into the report of the last comparison, if there is one and its text changed."""
    materialized = _newest(session.instance, "comparison")
    metadata = (
        materialized.asset_materialization.metadata if materialized and materialized.asset_materialization else {}
    )
    address = str(metadata["report"].value) if "report" in metadata else ""
    path = session.home / address.removeprefix(HOME_PAGES)
    if materialized is None or not address.startswith(HOME_PAGES) or not path.is_file():
        return
    page = path.read_text("utf-8")
    if (opened := with_opening(page, opening_facts(session, materialized))) != page:
        write_text(path, opened)


def opening_facts(session: Session, comparison: dg.EventLogRecord) -> list[tuple[str, str]]:
    """Return label and text of each fact of the opening."""
    run = session.instance.get_run_by_id(comparison.run_id)
    tags = run.tags if run else {}
    record = session.record("champion", ChampionRecord)
    last = record.last if record else None
    at = dt.datetime.fromtimestamp(comparison.timestamp, dt.UTC)
    return [
        ("Compared", f"{at:%Y-%m-%d %H:%M} UTC"),
        ("Batch", tags.get("batch", "")),
        ("Rows", _rows(session.instance)),
        ("Tier", tags.get("tier", session.tier_name)),
        ("Commit", _commit(PROJECT)),
        ("Champion", serving_line(session)),
        ("Decision", f"{last.outcome}: {last.reason}" if last else "none yet"),
    ]


def _rows(instance: dg.DagsterInstance) -> str:
    counts = []
    for asset, name in DATASETS:
        record = _newest(instance, asset)
        metadata: dict[str, Any] = (
            dict(record.asset_materialization.metadata) if record and record.asset_materialization else {}
        )
        if "dagster/row_count" in metadata:
            counts.append(f"{metadata['dagster/row_count'].value:,} {name}")
    return ", ".join(counts)


def _commit(project: Path) -> str:
    """Return the commit of the project, or its version where it is installed without a repository."""
    release = f"version {version('synth-assets')}"
    try:
        command = ["git", "rev-parse", "--short=12", "HEAD"]
        done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return release
    return f"{done.stdout.strip()}, {release}"


def _newest(instance: dg.DagsterInstance, asset: str) -> dg.EventLogRecord | None:
    return next(iter(instance.fetch_materializations(dg.AssetKey(asset), limit=1).records), None)
