"""Moving `@champion`: forward by a decision, back by a person, and noticing when somebody else did."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from synth_assets.promotion.contenders import APPROVED_BY, CHAMPION, ROLLED_BACK_AT, Registry, contender
from synth_assets.promotion.policy import Contender
from synth_assets.records import ChampionRecord, Clause, Decision

ROLLBACK = "rollback asked for"
BY_HAND = "a person in MLflow"


class SuccessionError(RuntimeError):
    """The alias may not be moved; the message says why and what to do."""


@dataclass(frozen=True)
class Occasion:
    """Who moves the alias, when (ISO 8601, UTC) and in which Dagster run."""

    who: str
    when: str
    run_id: str


def rollback_decision(registry: Registry, who: str) -> Decision:
    """Back to the version that served before, or to the base, without asking the policy.

    Raises:
        SuccessionError: there is no champion.
    """
    version = registry.alias(CHAMPION)
    if version is None:
        raise SuccessionError("there is no champion to roll back: nothing was promoted yet")
    serving = contender(registry, version)
    previous = contender(registry, registry.version_tags(version).get("champion.previous", ""))
    return Decision(
        outcome="promoted",
        candidate=previous.name,
        candidate_version=previous.version,
        opponent=serving.name,
        opponent_version=version,
        clauses=[Clause(ROLLBACK, passed=True, found=who, wanted="a person who asks")],
        reason=f"rolled back by {who}",
    )


def moved_by_hand(registry: Registry, recorded: ChampionRecord | None) -> str | None:
    """The version that `@champion` points to where somebody moved it in MLflow ("": removed it); else None.

    An alias that a killed run of ours had moved before it could be recorded is not a hand's work.

    Args:
        registry: MLflow.
        recorded: the champion asset's last record, or None where it was never materialised.
    """
    serving, known = registry.alias(CHAMPION) or "", recorded.version if recorded else ""
    if serving == known:
        return None
    tags = _tags(registry, serving)
    ours = tags.get("champion.from") == known and (not recorded or tags["champion.moved_at"] > recorded.moved_at)
    return None if ours else serving


def succeed(
    registry: Registry, decision: Decision, recorded: ChampionRecord | None, occasion: Occasion
) -> ChampionRecord:
    """Move the alias as decided, and say who serves now.

    The decision was made against one champion. Where another serves by now nothing moves, so that of two promotions at
    once the second is judged again.

    Args:
        registry: MLflow; the caller holds the lock that keeps other promotions out.
        decision: what was decided.
        recorded: the last record, or None.
        occasion: who, when and where, for the audit trail.

    Raises:
        SuccessionError: the decision was made against another champion.
    """
    serving = registry.alias(CHAMPION) or ""
    if decision.outcome == "promoted" and decision.candidate_version != serving:
        if decision.opponent_version != serving:
            raise SuccessionError(
                f"@champion is version {serving or 'none'}, the decision was made against version "
                f"{decision.opponent_version or 'none'}: run the job promote again"
            )
        return _moved(registry, decision, occasion)
    if (by_hand := moved_by_hand(registry, recorded)) is not None:
        flagged = decision.outcome == "refused" and decision.candidate_version == by_hand
        record = _record(contender(registry, by_hand), "moved by hand", replace(occasion, who=BY_HAND), decision.reason)
        return replace(record, previous_version=recorded.version if recorded else "", flagged=flagged)
    if recorded is None or recorded.version != serving:
        return _remembered(registry, serving, decision, occasion)
    return replace(recorded, action="kept", reason=decision.reason, dagster_run_id=occasion.run_id)


def _moved(registry: Registry, decision: Decision, occasion: Occasion) -> ChampionRecord:
    old, new = decision.opponent_version, decision.candidate_version
    trail = {
        "champion.from": old,
        "champion.moved_by": occasion.who,
        "champion.moved_at": occasion.when,
        "champion.run_id": occasion.run_id,
    }
    if any(clause.name == ROLLBACK for clause in decision.clauses):
        registry.tag_version(old, {ROLLED_BACK_AT: occasion.when, "champion.rolled_back_by": occasion.who})
        registry.remove_tag(old, APPROVED_BY)  # a yes from before the rollback is none to serving again
        if new:
            registry.set_alias(CHAMPION, new, trail)
        else:
            registry.remove_alias(CHAMPION)
        return replace(
            _record(contender(registry, new), "rolled back", occasion, decision.reason), previous_version=old
        )
    registry.set_alias(CHAMPION, new, {**trail, "champion.previous": old})
    return replace(_record(contender(registry, new), "promoted", occasion, decision.reason), previous_version=old)


def _remembered(registry: Registry, serving: str, decision: Decision, occasion: Occasion) -> ChampionRecord:
    """The record of a move that was made and never recorded, or of nothing having moved yet."""
    if not serving:
        return _record(contender(registry, ""), "kept", occasion, decision.reason)
    tags = registry.version_tags(serving)
    past = Occasion(tags["champion.moved_by"], tags["champion.moved_at"], tags["champion.run_id"])
    action = "rolled back" if ROLLED_BACK_AT in _tags(registry, tags["champion.from"]) else "promoted"
    record = _record(contender(registry, serving), action, past, decision.reason)
    return replace(record, previous_version=tags["champion.from"])


def _tags(registry: Registry, version: str) -> Mapping[str, str]:
    return registry.version_tags(version) if version else {}


def _record(
    now: Contender, action: Literal["promoted", "rolled back", "moved by hand", "kept"], occasion: Occasion, reason: str
) -> ChampionRecord:
    return ChampionRecord(
        version=now.version,
        name=now.name,
        fingerprint=now.fingerprint,
        path=f"adapters/{now.fingerprint}" if now.version else "",
        previous_version="",
        action=action,
        moved_by=occasion.who,
        moved_at=occasion.when,
        dagster_run_id=occasion.run_id,
        reason=reason,
    )


def evidence_tags(decision: Decision, occasion: Occasion, checks: Mapping[str, int]) -> dict[str, str]:
    """What a version is told about the decision on it."""
    failed = [clause.name for clause in decision.clauses if not clause.passed]
    return {
        "decision": decision.outcome,
        "decision.reason": decision.reason[:2000],
        "decision.failed_clauses": ", ".join(failed),
        "decision.against": decision.opponent_version or decision.opponent,
        "decision.asked_by": occasion.who,
        "decision.run_id": occasion.run_id,
        "decision.checks": ", ".join(f"{number} {status}" for status, number in sorted(checks.items())),
    }
