"""`synth champion`, `history`, `promote` and `rollback`: the registry's alias, moved by runs of the job `promote`."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import dagster as dg
from rich.console import Console

from resources.deployment import person
from synth_assets.cli.recall import champion_taint
from synth_assets.cli.rows import entry
from synth_assets.cli.run import execute
from synth_assets.cli.session import Session
from synth_assets.cli.trace import version_of
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import decisions_on
from synth_assets.reporting.display_names import display_name
from synth_assets.reporting.escaping import storable, terminal_line
from synth_assets.schemas.records import BASE, ChampionRecord, Clause, Decision, RecordedDecision
from synth_assets.stages.evaluation.scoreboard import decision_text
from synth_assets.stages.promotion.model_card import SCORE, attached_scores
from synth_assets.stages.promotion.rollback import is_rollback
from synth_assets.stages.promotion.service_history import Service, services, version_before
from synth_assets.text.redaction import holds_secret

REASON_CHARACTERS = 1_200
NOTHING = "nothing was promoted yet: synth run"


def promote_job() -> dg.JobDefinition:
    """The job `promote`, its two steps in this process."""
    from synth_assets.definitions import build_definitions, deployment_resources

    return build_definitions(deployment_resources(), dg.in_process_executor).resolve_job_def("promote")


def champion_text(session: Session) -> str:
    """Who serves, as the alias says: since when, by whom and why; then the last decision, which may be about another.

    Raises:
        ValueError: nothing was decided yet.
    """
    record = session.record("champion", ChampionRecord)
    past = services(session.tracker) if session.tracker else []
    if session.tracker is None or (record is None and not past):
        raise ValueError(NOTHING)
    now = past[-1] if past else None
    lines = _service(session, session.tracker, now, record) if now else [entry("serves", "the base model")]
    lines += ["", *_last_decision(record)]
    return "\n".join([*lines, *filter(None, [champion_taint(session)])])


def serving_line(session: Session) -> str:
    """Who serves, since when and how it came about, in one line."""
    past = services(session.tracker) if session.tracker else []
    if session.tracker is None or not past:
        return "the base model: no version was promoted yet"
    now = past[-1]
    how = f"{now.action} by {terminal_line(now.by)}" if now.at or now.version else terminal_line(now.reason)
    return f"{_title(session.tracker, now.version)} since {_moment(now.at)}: {how}"


def _service(session: Session, tracker: MlflowTracker, now: Service, record: ChampionRecord | None) -> list[str]:
    """What is known of the service in force; of a version from the registry, never from the record of another."""
    recorded = record if record and (record.version, record.moved_at) == (now.version, now.at) else None
    lines = [entry("serves", _title(tracker, now.version))]
    tags = tracker.version_tags(now.version) if now.version else {}
    if now.version:
        lines += [
            entry("adapter", f"{terminal_line(tags.get('asset', 'unknown'))} {terminal_line(now.fingerprint)}"),
            entry("batch", terminal_line(tags.get("batch", "")) or "not recorded"),
        ]
    flagged = ", which the policy refuses" if now.flagged else ""
    lines += [
        entry("since", _moment(now.at)),
        entry("by", f"{terminal_line(now.by)}: {now.action}{flagged}"),
        entry("because", terminal_line(now.reason, REASON_CHARACTERS)),
    ]
    if now.version:
        judged = decisions_on(tracker, now.version)
        lines += _evidence(now, recorded, judged)
        lines.append(entry("scores", _scores((recorded.scores if recorded else {}) or _scores_in(tags))))
        lines.append(entry("weights", str(session.home / "adapters" / now.fingerprint)))
    before = version_before(tracker)
    lines.append(entry("back", f"synth rollback goes to {_title(tracker, before)}, unless a clause of it fails"))
    return lines if now.version or before else lines[:-1]


def _evidence(now: Service, recorded: ChampionRecord | None, judged: list[RecordedDecision]) -> list[str]:
    """The clauses of the decision by which a version serves, and of its promotion where a person went back to it."""
    if recorded and recorded.clauses and not any(one.run_id == now.run_id for one in judged):
        return _clauses("evidence", recorded.clauses)
    own = [one for one in judged if one.run_id == now.run_id][-1:]
    promoted = [one for one in judged if one.decision.outcome == "promoted" and not is_rollback(one.decision)]
    lines = [line for one in own for line in _clauses("evidence", one.decision.clauses)]
    if not own or is_rollback(own[0].decision):
        lines += [
            line
            for one in (promoted or judged)[-1:]
            for line in _clauses(f"{one.decision.outcome} {one.at[:10]}", one.decision.clauses)
        ]
    return lines


def _clauses(display_name: str, clauses: list[Clause]) -> list[str]:
    marked = [
        f"{'pass' if clause.passed else 'FAIL'}  {clause.name}: {terminal_line(clause.actual, REASON_CHARACTERS)}"
        for clause in clauses
    ]
    return [*([entry(display_name, "")] if marked else []), *(entry("", line) for line in marked)]


def _last_decision(record: ChampionRecord | None) -> list[str]:
    last = record.last if record else None
    if last is None:
        return [entry("decision", "none is recorded since this version of synth keeps the last one: synth history")]
    about = (
        f"version {last.candidate_version}"
        if last.candidate_version
        else display_name(last.candidate) or "no candidate"
    )
    return [
        entry("decision", f"the last one: {last.outcome}, {about} was judged"),
        entry("at", f"{_moment(last.at)} by {terminal_line(last.asked_by)}, run {last.dagster_run_id[:8]}"),
        entry("because", terminal_line(last.reason, REASON_CHARACTERS)),
    ]


def _scores_in(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in tags.items() if name.startswith(SCORE)}


def _scores(tags: Mapping[str, str]) -> str:
    shown = [
        f"{terminal_line(score.suite)} {terminal_line(score.metric)} {score.facts['value']:.3f} (n {score.facts['n']})"
        for score in attached_scores(tags)
        if score.split == "test"
    ]
    return ", ".join(shown) or "it was not scored"


def _title(tracker: MlflowTracker, version: str) -> str:
    if not version:
        return "the base model"
    asset = tracker.version_tags(version).get("asset", "not from an adapter asset")
    return f"version {version} ({terminal_line(asset)})"


def _moment(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC" if at else "an unknown time"


def history_text(session: Session, limit: int) -> str:
    """Who serves, then what was decided and what it moved, newest first, from the history of the asset `champion`.

    Raises:
        ValueError: nothing was decided yet, or the limit is below 1.
    """
    if limit < 1:
        raise ValueError(f"--limit is at least 1, not {limit}")
    found = session.instance.fetch_materializations(dg.AssetKey("champion"), limit=limit).records
    if not found:
        raise ValueError("nothing was decided yet: synth run")
    present = set(session.tracker.versions()) if session.tracker else set()
    lines = [line for record in found for line in _told(record, present)]
    return "\n".join([entry("serves", serving_line(session)), "", *lines])


def _told(record: dg.EventLogRecord, present: set[str]) -> list[str]:
    """One decision: when, who asked, what moved, and why; the Dagster run is where its clauses and checks are."""
    metadata = record.asset_materialization.metadata if record.asset_materialization else {}
    facts: dict[str, Any] = {name: value.value for name, value in metadata.items()}
    at = dt.datetime.fromtimestamp(record.timestamp, dt.UTC)
    before, after, judged = (_named(str(facts[name]), present) for name in ("from", "to", "judged"))
    what = f"{facts['action']}: {before} -> {after}"
    if facts["action"] == "kept":
        what = f"{facts['decision']}: {after} stays, {judged} was judged"
    flag = ", which the policy refuses" if facts["flagged"] else ""
    by = facts["who"] if facts["action"] == "moved by hand" else facts["asked_by"]
    head = f"{at:%Y-%m-%d %H:%M} UTC  {what}{flag}; by {terminal_line(str(by))}, run {record.run_id[:8]}"
    return [head, f"    {terminal_line(str(facts['reason']), REASON_CHARACTERS)}"]


def _named(version: str, present: set[str]) -> str:
    """A version of an old decision, marked where it is gone."""
    gone = version.isdigit() and present and version not in present
    return f"{version} (deleted since)" if gone else terminal_line(version)


def promote_version(session: Session, version: str | None, console: Console) -> Decision:
    """Judge a version, or the present candidate, and promote it where every clause holds.

    Raises:
        ValueError: there is no such version; no run was started.
    """
    if session.tracker is None or not (session.home / "tables" / "comparison.json").is_file():
        raise ValueError("nothing was trained and compared yet: synth run")
    number = version_of(session, version) if version is not None else ""
    return _decided(session, {"approve": True, **({"version": number} if number else {})}, console)


def roll_back(
    session: Session, console: Console, version: str | None = None, reason: str = "", *, force: bool = False
) -> Decision:
    """Point @champion back to the last version that served before, or to the one that is named.

    Raises:
        ValueError: nothing ever served, there is no such version, `force` lacks its version or reason, or the reason
            holds a secret; no run was started.
    """
    if session.tracker is None or not services(session.tracker):
        raise ValueError("there is no champion to roll back: nothing was promoted yet")
    if force and not (version and reason.strip()):
        raise ValueError(
            "--force goes to a version that is named, and says why: synth rollback VERSION --force --reason"
        )
    if holds_secret(reason):
        raise ValueError("--reason holds what looks like a secret; it is stored and shown: describe the secret instead")
    config: dict[str, str | bool] = {"rollback": True, "force": force, "reason": storable(reason)}
    if version is not None:
        config["version"] = BASE if version.strip() == BASE else version_of(session, version)
    return _decided(session, config, console)


def _decided(session: Session, config: dict[str, str | bool], console: Console) -> Decision:
    ops = {"promotion_decision": {"config": config}}
    tags = {"trigger": "synth", "by": person(), "tier": session.tier_name}
    if not execute(session, promote_job, {"ops": ops}, tags, console):
        raise RuntimeError("the decision could not be made: the line marked FAILED says why; nothing was moved")
    decision = session.record("promotion_decision", Decision)
    if decision is None:
        raise RuntimeError("the run left no decision: look at it in the UI (synth ui)")
    rolled_back = is_rollback(decision) and decision.outcome == "promoted"
    text = _rollback_text(decision) if rolled_back else decision_text(decision)
    console.print(text, markup=False)
    return decision


def _rollback_text(decision: Decision) -> str:
    target = f"version {decision.candidate_version} ({decision.candidate})" if decision.candidate_version else BASE
    lines = [
        entry("serves", "the base model" if target == BASE else target),
        entry("because", terminal_line(decision.reason, REASON_CHARACTERS)),
    ]
    return "\n".join([*lines, *_clauses("evidence", decision.clauses[1:])])
