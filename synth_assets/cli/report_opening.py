"""The opening of the last comparison's report: when, from what, who serves, and what was decided and why."""

import datetime as dt
from typing import Any

import dagster as dg

from resources.storage import HOME_PAGES
from synth_assets.cli.commit import COMMIT
from synth_assets.cli.registry import serving_line
from synth_assets.cli.session import Session
from synth_assets.reporting.page_parts import with_opening
from synth_assets.schemas.records import ChampionRecord
from synth_assets.storage.atomic import write_text

DATASETS = (("sft_dataset", "instructions"), ("preference_pairs", "preference pairs"))


def write_opening(session: Session) -> None:
    """Write the opening into the report of the last comparison, if there is one and its text changed."""
    comparison = newest_record(session.instance, "comparison")
    address = str(metadata_of(comparison).get("report", ""))
    path = session.home / address.removeprefix(HOME_PAGES)
    if comparison is None or not address.startswith(HOME_PAGES) or not path.is_file():
        return
    page = path.read_text("utf-8")
    if (opened := with_opening(page, opening_facts(session, comparison))) != page:
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
        ("Rows", _rows(session.instance, comparison.storage_id)),
        ("Tier", tags.get("tier", session.tier_name)),
        ("Commit", tags.get(COMMIT, "")),
        ("Champion", serving_line(session)),
        ("Decision", _decision(last.outcome, last.reason) if last else "none yet"),
    ]


def _decision(outcome: str, reason: str) -> str:
    return reason if reason.startswith(outcome) else f"{outcome}: {reason}"


def _rows(instance: dg.DagsterInstance, before: int) -> str:
    """Return the rows of the datasets that were newest when the event `before` was stored."""
    counts = []
    for asset, name in DATASETS:
        rows = metadata_of(newest_record(instance, asset, before)).get("dagster/row_count")
        if rows is not None:
            counts.append(f"{rows:,} {name}")
    return ", ".join(counts)


def newest_record(instance: dg.DagsterInstance, asset: str, before: int | None = None) -> dg.EventLogRecord | None:
    """Return the newest materialisation of an asset, or the newest before an event."""
    records_filter = dg.AssetRecordsFilter(dg.AssetKey(asset), before_storage_id=before)
    return next(iter(instance.fetch_materializations(records_filter, limit=1).records), None)


def metadata_of(record: dg.EventLogRecord | None) -> dict[str, Any]:
    """Return the metadata of a materialisation as plain values; empty without one."""
    materialization = record.asset_materialization if record else None
    return {name: value.value for name, value in materialization.metadata.items()} if materialization else {}
