"""`synth champion`, `history`, `promote` and `rollback`: show and move the alias `@champion` in the registry."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import dagster as dg

from resources.deployment import person
from synth_assets.cli.execution import JobRun, execute
from synth_assets.cli.recall import champion_taint
from synth_assets.cli.rows import entry
from synth_assets.cli.session import Session
from synth_assets.cli.terminal import RedactingConsole
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

MAX_REASON_CHARACTERS = 1_200
NO_CHAMPION = "nothing was promoted yet; run `synth run` first"


def promote_job() -> dg.JobDefinition:
    """Return the job `promote` with its two steps in this process."""
    from synth_assets.definitions import build_definitions, deployment_resources

    return build_definitions(deployment_resources(), dg.in_process_executor).resolve_job_def("promote")


def champion_text(session: Session) -> str:
    """Describe the version that `@champion` points to, and the last decision, which may concern another version.

    Raises:
        ValueError: there is no decision yet.
    """
    record = session.record("champion", ChampionRecord)
    history = services(session.tracker) if session.tracker else []
    if session.tracker is None or (record is None and not history):
        raise ValueError(NO_CHAMPION)
    service = history[-1] if history else None
    lines = _service(session, session.tracker, service, record) if service else [entry("serves", "the base model")]
    lines += ["", *_last_decision(record)]
    return "\n".join([*lines, *filter(None, [champion_taint(session)])])


def serving_line(session: Session) -> str:
    """Return one line with the version that serves, since when, and how it was promoted."""
    history = services(session.tracker) if session.tracker else []
    if session.tracker is None or not history:
        return "the base model: no version was promoted yet"
    last = history[-1]
    action = f"{last.action} by {terminal_line(last.by)}" if last.at or last.version else terminal_line(last.reason)
    return f"{_title(session.tracker, last.version)} since {_time_text(last.at)}: {action}"


def last_decision_lines(session: Session) -> list[str]:
    """Describe the last decision: candidate and outcome, time and person, reason. Empty before the first one."""
    record = session.record("champion", ChampionRecord)
    return _last_decision(record) if record and record.last else []


def _service(session: Session, tracker: MlflowTracker, service: Service, record: ChampionRecord | None) -> list[str]:
    """Describe the current service from the registry, and from the record if that is of the same version."""
    recorded = record if record and (record.version, record.moved_at) == (service.version, service.at) else None
    lines = [entry("serves", _title(tracker, service.version))]
    tags = tracker.version_tags(service.version) if service.version else {}
    if service.version:
        lines += [
            entry("adapter", f"{terminal_line(tags.get('asset', 'unknown'))} {terminal_line(service.fingerprint)}"),
            entry("batch", terminal_line(tags.get("batch", "")) or "not recorded"),
        ]
    flagged = ", refused by the policy" if service.flagged else ""
    lines += [
        entry("since", _time_text(service.at)),
        entry("by", f"{terminal_line(service.by)}: {service.action}{flagged}"),
        entry("because", terminal_line(service.reason, MAX_REASON_CHARACTERS)),
    ]
    if service.version:
        decisions = decisions_on(tracker, service.version)
        lines += _evidence(service, recorded, decisions)
        lines.append(entry("scores", _scores((recorded.scores if recorded else {}) or _scores_in(tags))))
        lines.append(entry("weights", str(session.home / "adapters" / service.fingerprint)))
    before = version_before(tracker)
    lines.append(entry("back", f"synth rollback restores {_title(tracker, before)}, unless it fails a clause"))
    return lines if service.version or before else lines[:-1]


def _evidence(service: Service, recorded: ChampionRecord | None, decisions: list[RecordedDecision]) -> list[str]:
    """List the clauses of the decision that started the service; after a rollback also those of the promotion."""
    if recorded and recorded.clauses and not any(item.run_id == service.run_id for item in decisions):
        return _clauses("evidence", recorded.clauses)
    current = [item for item in decisions if item.run_id == service.run_id][-1:]
    promotions = [item for item in decisions if item.decision.outcome == "promoted" and not is_rollback(item.decision)]
    lines = [line for item in current for line in _clauses("evidence", item.decision.clauses)]
    if not current or is_rollback(current[0].decision):
        lines += [
            line
            for item in (promotions or decisions)[-1:]
            for line in _clauses(f"{item.decision.outcome} {item.at[:10]}", item.decision.clauses)
        ]
    return lines


def _clauses(label: str, clauses: list[Clause]) -> list[str]:
    results = [
        f"{'pass' if clause.passed else 'FAIL'}  {clause.name}: {terminal_line(clause.actual, MAX_REASON_CHARACTERS)}"
        for clause in clauses
    ]
    return [*([entry(label, "")] if results else []), *(entry("", line) for line in results)]


def _last_decision(record: ChampionRecord | None) -> list[str]:
    last = record.last if record else None
    if record is None or last is None:
        return [entry("decision", "not recorded; `synth history` lists earlier decisions")]
    candidate = (
        f"version {last.candidate_version}"
        if last.candidate_version
        else display_name(last.candidate) or "no candidate"
    )
    rolled_back = record.action == "rolled back" and record.dagster_run_id == last.dagster_run_id
    decision = f"rolled back to {candidate}" if rolled_back else f"{candidate} {last.outcome}"
    return [
        entry("decision", f"last decision: {decision}"),
        entry("at", f"{_time_text(last.at)} by {terminal_line(last.asked_by)}, run {last.dagster_run_id[:8]}"),
        entry("because", terminal_line(last.reason, MAX_REASON_CHARACTERS)),
    ]


def _scores_in(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in tags.items() if name.startswith(SCORE)}


def _scores(tags: Mapping[str, str]) -> str:
    scores = [
        f"{terminal_line(score.suite)} {terminal_line(score.metric)} {score.facts['value']:.3f} (n {score.facts['n']})"
        for score in attached_scores(tags)
        if score.split == "test"
    ]
    return ", ".join(scores) or "not scored"


def _title(tracker: MlflowTracker, version: str) -> str:
    if not version:
        return "the base model"
    asset = tracker.version_tags(version).get("asset", "not registered by an adapter asset")
    return f"version {version} ({terminal_line(asset)})"


def _time_text(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC" if at else "an unknown time"


def history_text(session: Session, limit: int) -> str:
    """List the current champion and the decisions, newest first, from the history of the asset `champion`.

    Raises:
        ValueError: there is no decision yet, or the limit is below 1.
    """
    if limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    records = session.instance.fetch_materializations(dg.AssetKey("champion"), limit=limit).records
    if not records:
        raise ValueError("there is no promotion decision yet; run `synth run` first")
    existing = set(session.tracker.versions()) if session.tracker else set()
    lines = [line for record in records for line in _decision_lines(record, existing)]
    return "\n".join([entry("serves", serving_line(session)), "", *lines])


def _decision_lines(record: dg.EventLogRecord, existing: set[str]) -> list[str]:
    """Describe one decision: time, action, person, Dagster run and reason."""
    metadata = record.asset_materialization.metadata if record.asset_materialization else {}
    facts: dict[str, Any] = {name: value.value for name, value in metadata.items()}
    at = dt.datetime.fromtimestamp(record.timestamp, dt.UTC)
    before, after, candidate = (_version_text(str(facts[name]), existing) for name in ("from", "to", "judged"))
    change = f"{facts['action']}: {before} -> {after}"
    if facts["action"] == "kept":
        confirmed = facts["decision"] == "unchanged"
        change = f"confirmed: {after}" if confirmed else f"{facts['decision']}: {candidate}; {after} stays"
    flag = ", refused by the policy" if facts["flagged"] else ""
    by = facts["who"] if facts["action"] == "moved by hand" else facts["asked_by"]
    head = f"{at:%Y-%m-%d %H:%M} UTC  {change}{flag}; by {terminal_line(str(by))}, run {record.run_id[:8]}"
    return [head, f"    {terminal_line(str(facts['reason']), MAX_REASON_CHARACTERS)}"]


def _version_text(version: str, existing: set[str]) -> str:
    """Return the version of an earlier decision, marked if it was deleted."""
    is_deleted = version.isdigit() and existing and version not in existing
    return f"{version} (deleted)" if is_deleted else terminal_line(version)


def promote_version(session: Session, version: str | None, console: RedactingConsole) -> Decision:
    """Evaluate a version, or the current candidate, and promote it if it passes every clause.

    Raises:
        ValueError: the version does not exist; no run was started.
    """
    if session.tracker is None or not (session.home / "tables" / "comparison.json").is_file():
        raise ValueError("no adapter has been trained and compared yet; run `synth run` first")
    number = version_of(session, version) if version is not None else ""
    return _run_decision(session, {"approve": True, **({"version": number} if number else {})}, console)


def roll_back(
    session: Session, console: RedactingConsole, version: str | None = None, reason: str = "", *, force: bool = False
) -> Decision:
    """Point @champion back to an earlier champion: to `version`, or to the last one that passes the policy.

    Raises:
        ValueError: there was no champion, the version does not exist, `force` is set without version or reason, or the
            reason contains a secret; no run was started.
    """
    if session.tracker is None or not services(session.tracker):
        raise ValueError("no champion to roll back: nothing was promoted yet")
    if force and not (version and reason.strip()):
        raise ValueError("--force needs a version and a reason: synth rollback VERSION --force --reason TEXT")
    if holds_secret(reason):
        raise ValueError("--reason must not contain a secret: it is stored and shown. Describe the secret instead")
    config: dict[str, str | bool] = {"rollback": True, "force": force, "reason": storable(reason)}
    if version is not None:
        config["version"] = BASE if version.strip() == BASE else version_of(session, version)
    return _run_decision(session, config, console)


def _run_decision(session: Session, config: dict[str, str | bool], console: RedactingConsole) -> Decision:
    ops = {"promotion_decision": {"config": config}}
    tags = {"trigger": "synth", "by": person(), "tier": session.tier_name}
    if not execute(session, JobRun(promote_job, {"ops": ops}, tags), console):
        raise RuntimeError("the run of the decision failed; see the line marked FAILED. @champion is unchanged")
    decision = session.record("promotion_decision", Decision)
    if decision is None:
        raise RuntimeError("the run stored no decision; inspect it in the UI (`synth ui`)")
    is_rolled_back = is_rollback(decision) and decision.outcome == "promoted"
    text = _rollback_text(decision) if is_rolled_back else decision_text(decision)
    console.print(text, markup=False)
    return decision


def _rollback_text(decision: Decision) -> str:
    target = f"version {decision.candidate_version} ({decision.candidate})" if decision.candidate_version else BASE
    lines = [
        entry("serves", "the base model" if target == BASE else target),
        entry("because", terminal_line(decision.reason, MAX_REASON_CHARACTERS)),
    ]
    return "\n".join([*lines, *_clauses("evidence", decision.clauses[1:])])
