"""`synth champion`, `history`, `promote` and `rollback`: the registry's alias, moved by runs of the job `promote`."""

import datetime as dt
from getpass import getuser

import dagster as dg
from rich.console import Console

from synth_assets.commands.recall import champion_taint
from synth_assets.commands.run import execute
from synth_assets.commands.session import Session
from synth_assets.evaluation.scoreboard import decision_text
from synth_assets.records import ChampionRecord, Decision


def promote_job() -> dg.JobDefinition:
    """The job `promote`, its two steps in this process."""
    from synth_assets.definitions import build_definitions, deployment_resources

    return build_definitions(deployment_resources(), dg.in_process_executor).resolve_job_def("promote")


def champion_text(session: Session) -> str:
    """Who serves, since when, by whom and why; ValueError where nothing was decided yet."""
    record = session.record("champion", ChampionRecord)
    if record is None:
        raise ValueError("nothing was promoted yet: synth run")
    serves = f"version {record.version} ({record.name})" if record.version else "the base model: no champion"
    lines = [
        f"serves    {serves}",
        f"before    {'version ' + record.previous_version if record.previous_version else 'the base model'}",
        f"moved     {record.moved_at} by {record.moved_by}: {record.action}",
        f"because   {record.reason}",
    ]
    if record.path:
        lines.append(f"weights   {session.home / record.path}")
    return "\n".join(filter(None, [*lines, champion_taint(session)]))


def history_text(session: Session, limit: int) -> str:
    """What was decided and what it moved, newest first, from the history of the asset `champion`.

    Raises:
        ValueError: nothing was decided yet, or the limit is below 1.
    """
    if limit < 1:
        raise ValueError(f"--limit is at least 1, not {limit}")
    found = session.instance.fetch_materializations(dg.AssetKey("champion"), limit=limit).records
    if not found:
        raise ValueError("nothing was decided yet: synth run")
    return "\n".join(line for record in found for line in _told(record))


def _told(record: dg.EventLogRecord) -> list[str]:
    """One decision: when, who asked, what moved, and why; the Dagster run is where its clauses and checks are."""
    metadata = record.asset_materialization.metadata if record.asset_materialization else {}
    facts = {name: value.value for name, value in metadata.items()}
    at = dt.datetime.fromtimestamp(record.timestamp, dt.UTC)
    what = f"{facts['action']}: {facts['from']} -> {facts['to']}"
    if facts["action"] == "kept":
        what = f"{facts['decision']}: {facts['to']} stays, {facts['judged']} was judged"
    flag = ", which the policy refuses" if facts["flagged"] else ""
    by = facts["who"] if facts["action"] == "moved by hand" else facts["asked_by"]
    head = f"{at:%Y-%m-%d %H:%M} UTC  {what}{flag}; by {by}, run {record.run_id[:8]}"
    return [head, f"    {facts['reason']}"]


def promote_version(session: Session, version: str | None, console: Console) -> Decision:
    """Judge a version, or the present candidate, and promote it where every clause holds."""
    return _decided(session, {"approve": True, **({"version": version} if version else {})}, console)


def roll_back(session: Session, console: Console) -> Decision:
    """Point @champion back to the version before."""
    return _decided(session, {"rollback": True}, console)


def _decided(session: Session, config: dict[str, str | bool], console: Console) -> Decision:
    ops = {"promotion_decision": {"config": config}}
    tags = {"trigger": "synth", "by": getuser(), "tier": session.tier_name}
    if not execute(session, promote_job, {"ops": ops}, tags, console):
        raise RuntimeError("the decision could not be made: the line marked FAILED says why; nothing was moved")
    decision = session.record("promotion_decision", Decision)
    if decision is None:
        raise RuntimeError("the run left no decision: look at it in the UI (synth ui)")
    console.print(decision_text(decision), markup=False)
    return decision
