"""Move the `@champion` alias by a decision or a rollback, and detect moves made in MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from synth_assets.reporting.escaping import metadata_line
from synth_assets.schemas.records import BASE, AuditEntry, ChampionRecord, Decision, LastDecision
from synth_assets.stages.promotion.candidates import APPROVED_BY, CHAMPION, ROLLED_BACK_AT, Registry
from synth_assets.stages.promotion.model_card import SCORE
from synth_assets.stages.promotion.rollback import is_rollback
from synth_assets.stages.promotion.service_history import (
    REASON_CHARACTERS,
    Action,
    Service,
    ServiceHistoryError,
    save_services,
    services,
    serving_version,
)

NOTHING_SERVED = "no version was promoted yet: the base model serves"


def moved_by_hand(registry: Registry, recorded: ChampionRecord | None) -> str | None:
    """Return the version that `@champion` was moved to in MLflow ("": alias removed), or None if it was not.

    An alias moved by a run that was killed before it could record the move does not count.

    Args:
        registry: the model registry.
        recorded: last record of the asset `champion`; None if it was never materialised.
    """
    serving = serving_version(registry)
    if serving == (recorded.version if recorded else ""):
        return None
    history = services(registry)
    return serving if history and history[-1].action == "moved by hand" else None


def apply_decision(
    registry: Registry, decision: Decision, recorded: ChampionRecord | None, audit: AuditEntry
) -> ChampionRecord:
    """Move the alias as decided and return the champion's record.

    A decision holds against one champion only. If another version serves by now, nothing moves: of two concurrent
    promotions the second must be decided again. The record of a serving version stays until another one serves.

    Args:
        registry: the model registry; the caller holds the promotion lock.
        decision: the decision.
        recorded: the last record, or None.
        audit: entry of the audit trail.

    Raises:
        ServiceHistoryError: the decision was made against another champion.
    """
    history = _logged_services(registry, decision, audit)
    serving = history[-1].version if history else ""
    if decision.outcome == "promoted" and decision.candidate_version != serving:
        if decision.opponent_version != serving:
            raise ServiceHistoryError(
                f"@champion is version {serving or 'none'}, the decision was made against version "
                f"{decision.opponent_version or 'none'}: run the job promote again"
            )
        history = [*history, _moved(registry, decision, audit)]
        save_services(registry, history)
    last = LastDecision(
        decision.outcome,
        decision.candidate,
        decision.candidate_version,
        decision.reason,
        audit.who,
        audit.when,
        audit.run_id,
    )
    current = history[-1] if history else Service("", "kept", audit.who, audit.when, audit.run_id, NOTHING_SERVED)
    if recorded is not None and _describes(recorded, current):
        return replace(recorded, last=last)
    return replace(_record(registry, history, current, decision), last=last)


def _describes(recorded: ChampionRecord, current: Service) -> bool:
    """Return whether a record already describes this service."""
    if current.action == "kept":
        return not recorded.version and recorded.action == "kept"
    described = (recorded.version, recorded.moved_at, recorded.action, recorded.reason)
    return described == (current.version, current.at, current.action, current.reason)


def _logged_services(registry: Registry, decision: Decision, audit: AuditEntry) -> list[Service]:
    """Return every service, after adding a move made in MLflow to the log."""
    history = services(registry)
    if history and history[-1].action == "moved by hand":
        current = history[-1] if history[-1].at else replace(history[-1], at=audit.when, run_id=audit.run_id)
        if current.version and decision.candidate_version == current.version and decision.outcome != "unchanged":
            moved = f"@champion was moved to version {current.version} in MLflow"
            reason = metadata_line(f"{moved}; decision since: {decision.reason}", REASON_CHARACTERS)
            current = replace(current, flagged=decision.outcome == "refused", reason=reason)
        history = [*history[:-1], current]
    save_services(registry, history)
    return history


def _moved(registry: Registry, decision: Decision, audit: AuditEntry) -> Service:
    previous, new = decision.opponent_version, decision.candidate_version
    rollback = is_rollback(decision)
    action: Action = "rolled back" if rollback else "promoted"
    reason = metadata_line(decision.reason, REASON_CHARACTERS)
    trail = {
        "champion.from": previous,
        "champion.moved_by": metadata_line(audit.who),
        "champion.moved_at": audit.when,
        "champion.run_id": audit.run_id,
        "champion.action": action,
        "champion.reason": reason,
    }
    if rollback and previous:
        registry.tag_version(
            previous, {ROLLED_BACK_AT: audit.when, "champion.rolled_back_by": metadata_line(audit.who)}
        )
        registry.remove_tag(previous, APPROVED_BY)  # an approval from before the rollback does not count afterwards
    if new:
        registry.set_alias(CHAMPION, new, trail if rollback else {**trail, "champion.previous": previous})
    elif registry.alias(CHAMPION):
        registry.remove_alias(CHAMPION)
    made_by = registry.version_tags(new)["fingerprint"] if new else ""
    return Service(new, action, metadata_line(audit.who), audit.when, audit.run_id, reason, made_by)


def _record(registry: Registry, history: Sequence[Service], current: Service, decision: Decision) -> ChampionRecord:
    tags = registry.version_tags(current.version) if current.version else {}
    decided = decision.candidate_version == current.version and decision.outcome != "unchanged"
    return ChampionRecord(
        version=current.version,
        name=tags.get("asset", "no adapter asset") if current.version else BASE,
        fingerprint=tags.get("fingerprint", ""),
        path=f"adapters/{tags['fingerprint']}" if "fingerprint" in tags else "",
        previous_version=history[-2].version if len(history) > 1 else "",
        action=current.action,
        moved_by=current.by,
        moved_at=current.at,
        dagster_run_id=current.run_id,
        reason=current.reason,
        flagged=current.flagged,
        batch=tags.get("batch", ""),
        clauses=list(decision.clauses) if decided else [],
        scores={name: text for name, text in tags.items() if name.startswith(SCORE)},
    )


def evidence_tags(decision: Decision, audit: AuditEntry, checks: Mapping[str, int]) -> dict[str, str]:
    """Return the tags that describe a decision on the version it is about."""
    failed = [clause.name for clause in decision.clauses if not clause.passed]
    return {
        "decision": decision.outcome,
        "decision.reason": metadata_line(decision.reason),
        "decision.failed_clauses": ", ".join(failed),
        "decision.against": decision.opponent_version or decision.opponent,
        "decision.asked_by": metadata_line(audit.who),
        "decision.run_id": audit.run_id,
        "decision.checks": ", ".join(f"{number} {status}" for status, number in sorted(checks.items())),
    }
