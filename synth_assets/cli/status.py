"""`synth status`: show the assets with their age, the failed checks and the last runs."""

import datetime as dt
from collections.abc import Iterable

import dagster as dg

from synth_assets.cli.recall import champion_taint
from synth_assets.cli.registry import serving_line
from synth_assets.cli.session import Session


def status_text(session: Session) -> str:
    """Return a line per asset in topological order, then the failed checks, then the last runs."""
    from synth_assets.definitions import defs

    graph = defs().resolve_asset_graph()
    lines = [f"state    {session.home}", f"tier     {session.tier_name}", f"serves   {serving_line(session)}", ""]
    for key in graph.toposorted_asset_keys:
        event = session.instance.get_latest_materialization_event(key)
        lines.append(f"{key.to_user_string():28} {_age(event)}")
    evaluations = last_evaluations(session.instance, graph.asset_check_keys)
    failed = [
        f"check failed ({evaluation.severity.value}): {key.asset_key.to_user_string()}: {key.name}"
        for key, evaluation in evaluations.items()
        if not evaluation.passed
    ]
    lines += ["", *(failed or ["no failed check"]), "", *filter(None, [champion_taint(session)])]
    for run in session.instance.get_run_records(limit=5):
        started = dt.datetime.fromtimestamp(run.start_time or 0, dt.UTC)
        summary = f"{run.dagster_run.run_id[:8]} {run.dagster_run.job_name:10} {run.dagster_run.status.value:10}"
        lines.append(f"{summary} {started:%Y-%m-%d %H:%M} UTC")
    return "\n".join(lines)


def _age(event: dg.EventLogEntry | None) -> str:
    if event is None or event.asset_materialization is None:
        return "never materialised"
    age = dt.timedelta(seconds=int(dt.datetime.now(dt.UTC).timestamp() - event.timestamp))
    version = (event.asset_materialization.tags or {}).get("dagster/data_version", "")
    return f"{version:18} {age} ago"


def last_evaluations(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    """Return the last evaluation of each check that has one, in the order of the keys."""
    keys = list(keys)
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    found = ((key, records[key].event) for key in keys if key in records)
    return {
        key: evaluation for key, event in found if event and (evaluation := event.asset_check_evaluation) is not None
    }
