"""Moving `@champion`: forward by a decision, back by a person, and noticing when somebody else did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from synth_assets.reporting.escaping import metadata_line
from synth_assets.schemas.records import BASE, ChampionRecord, Decision, LastDecision
from synth_assets.stages.promotion.candidates import APPROVED_BY, CHAMPION, ROLLED_BACK_AT, Registry
from synth_assets.stages.promotion.model_card import SCORE
from synth_assets.stages.promotion.rollback import is_rollback
from synth_assets.stages.promotion.service_history import (
    REASON_CHARACTERS,
    Action,
    Service,
    ServiceHistoryError,
    keep,
    services,
    serving_version,
)

NOTHING_SERVED = "no version was promoted yet: the base model serves"


@dataclass(frozen=True)
class AuditEntry:
    """Who moves the alias, when (ISO 8601, UTC) and in which Dagster run."""

    who: str
    when: str
    run_id: str


def moved_by_hand(registry: Registry, recorded: ChampionRecord | None) -> str | None:
    """The version that `@champion` points to where somebody moved it in MLflow ("": removed it); else None.

    An alias that a killed run of ours had moved before it could be recorded is not a hand's work.

    Args:
        registry: MLflow.
        recorded: the champion asset's last record, or None where it was never materialised.
    """
    serving = serving_version(registry)
    if serving == (recorded.version if recorded else ""):
        return None
    past = services(registry)
    return serving if past and past[-1].action == "moved by hand" else None


def apply_decision(
    registry: Registry, decision: Decision, recorded: ChampionRecord | None, occasion: AuditEntry
) -> ChampionRecord:
    """Move the alias as decided, and say who serves now and by what.

    The decision was made against one champion. Where another serves by now nothing moves, so that of two promotions at
    once the second is judged again. What the record says of the version that serves stays until another one serves.

    Args:
        registry: MLflow; the caller holds the lock that keeps other promotions out.
        decision: what was decided.
        recorded: the last record, or None.
        occasion: who, when and where, for the audit trail.

    Raises:
        SuccessionError: the decision was made against another champion.
    """
    past = _brought_up(registry, decision, occasion)
    serving = past[-1].version if past else ""
    if decision.outcome == "promoted" and decision.candidate_version != serving:
        if decision.opponent_version != serving:
            raise ServiceHistoryError(
                f"@champion is version {serving or 'none'}, the decision was made against version "
                f"{decision.opponent_version or 'none'}: run the job promote again"
            )
        past = [*past, _moved(registry, decision, occasion)]
        keep(registry, past)
    last = LastDecision(
        decision.outcome,
        decision.candidate,
        decision.candidate_version,
        decision.reason,
        occasion.who,
        occasion.when,
        occasion.run_id,
    )
    now = past[-1] if past else Service("", "kept", occasion.who, occasion.when, occasion.run_id, NOTHING_SERVED)
    if recorded is not None and _describes(recorded, now):
        return replace(recorded, last=last)
    return replace(_record(registry, past, now, decision), last=last)


def _describes(recorded: ChampionRecord, now: Service) -> bool:
    """Whether a record is already the one of this service."""
    if now.action == "kept":
        return not recorded.version and recorded.action == "kept"
    described = (recorded.version, recorded.moved_at, recorded.action, recorded.reason)
    return described == (now.version, now.at, now.action, now.reason)


def _brought_up(registry: Registry, decision: Decision, occasion: AuditEntry) -> list[Service]:
    """Every service, the one in force in the log as well: a move by hand is recorded before anything else happens."""
    past = services(registry)
    if past and past[-1].action == "moved by hand":
        now = past[-1] if past[-1].at else replace(past[-1], at=occasion.when, run_id=occasion.run_id)
        if now.version and decision.candidate_version == now.version and decision.outcome != "unchanged":
            moved = f"@champion was moved to version {now.version} in MLflow"
            reason = metadata_line(f"{moved}; judged since: {decision.reason}", REASON_CHARACTERS)
            now = replace(now, flagged=decision.outcome == "refused", reason=reason)
        past = [*past[:-1], now]
    keep(registry, past)
    return past


def _moved(registry: Registry, decision: Decision, occasion: AuditEntry) -> Service:
    old, new = decision.opponent_version, decision.candidate_version
    back = is_rollback(decision)
    action: Action = "rolled back" if back else "promoted"
    reason = metadata_line(decision.reason, REASON_CHARACTERS)
    trail = {
        "champion.from": old,
        "champion.moved_by": metadata_line(occasion.who),
        "champion.moved_at": occasion.when,
        "champion.run_id": occasion.run_id,
        "champion.action": action,
        "champion.reason": reason,
    }
    if back and old:
        registry.tag_version(
            old, {ROLLED_BACK_AT: occasion.when, "champion.rolled_back_by": metadata_line(occasion.who)}
        )
        registry.remove_tag(old, APPROVED_BY)  # a yes from before the rollback is none to serving again
    if new:
        registry.set_alias(CHAMPION, new, trail if back else {**trail, "champion.previous": old})
    elif registry.alias(CHAMPION):
        registry.remove_alias(CHAMPION)
    made_by = registry.version_tags(new)["fingerprint"] if new else ""
    return Service(new, action, metadata_line(occasion.who), occasion.when, occasion.run_id, reason, made_by)


def _record(registry: Registry, past: Sequence[Service], now: Service, decision: Decision) -> ChampionRecord:
    tags = registry.version_tags(now.version) if now.version else {}
    about = decision.candidate_version == now.version and decision.outcome != "unchanged"
    return ChampionRecord(
        version=now.version,
        name=tags.get("asset", "no adapter asset") if now.version else BASE,
        fingerprint=tags.get("fingerprint", ""),
        path=f"adapters/{tags['fingerprint']}" if "fingerprint" in tags else "",
        previous_version=past[-2].version if len(past) > 1 else "",
        action=now.action,
        moved_by=now.by,
        moved_at=now.at,
        dagster_run_id=now.run_id,
        reason=now.reason,
        flagged=now.flagged,
        batch=tags.get("batch", ""),
        clauses=list(decision.clauses) if about else [],
        scores={name: text for name, text in tags.items() if name.startswith(SCORE)},
    )


def evidence_tags(decision: Decision, occasion: AuditEntry, checks: Mapping[str, int]) -> dict[str, str]:
    """What a version is told about the decision on it."""
    failed = [clause.name for clause in decision.clauses if not clause.passed]
    return {
        "decision": decision.outcome,
        "decision.reason": metadata_line(decision.reason),
        "decision.failed_clauses": ", ".join(failed),
        "decision.against": decision.opponent_version or decision.opponent,
        "decision.asked_by": metadata_line(occasion.who),
        "decision.run_id": occasion.run_id,
        "decision.checks": ", ".join(f"{number} {status}" for status, number in sorted(checks.items())),
    }
