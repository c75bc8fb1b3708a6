"""Back to a version that served before: which one, by what right, and what was skipped on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from synth_assets.reporting.escaping import metadata_line
from synth_assets.schemas.records import BASE, Clause, Decision
from synth_assets.stages.promotion.candidates import Registry, promotion_candidate
from synth_assets.stages.promotion.policy import PromotionCandidate
from synth_assets.stages.promotion.service_history import Service, ServiceHistoryError, exists, services, way_back

ROLLBACK = "rollback asked for"
FILES = "files intact"  # the clause that no person can answer for: without its files a version cannot serve


@dataclass(frozen=True)
class Rollback:
    """What a person asks of a rollback.

    Args:
        version: a version that served before, or "base"; empty: the last one that may serve.
        force: go to that version although a clause that protects users fails; the person answers for it.
        reason: why; wanted with `force`.
    """

    version: str = ""
    force: bool = False
    reason: str = ""


def rollback_decision(
    registry: Registry,
    who: str,
    asked: Rollback | None = None,
    protections: Callable[[PromotionCandidate], Sequence[Clause]] = lambda _: (),
) -> Decision:
    """Go back to the last version that served before the present one, still exists and fails no clause.

    Where there is none, the base model. The reason names each version that was skipped, and why. A version that is
    asked for by its number is not skipped: the decision is refused where a clause of it fails.

    Args:
        registry: MLflow.
        who: the person.
        asked: as `Rollback` says.
        protections: the clauses that protect users of a version.

    Raises:
        SuccessionError: nothing served before, or not the version that was asked for.
    """
    asked = asked or Rollback()
    if asked.force and not (asked.version and asked.reason.strip()):
        raise ServiceHistoryError(
            "a forced rollback names its version and says why: synth rollback VERSION --force --reason"
        )
    past = services(registry)
    if not past:
        raise ServiceHistoryError("there is no champion to roll back: nothing was promoted yet")
    present, skipped = _present(registry, past[-1]), list[str]()
    for service in _asked_services(asked, way_back(past)):
        candidate, clauses = _examined(registry, service, protections)
        if candidate is None:
            skipped.append(f"version {service.version} ({clauses[0].actual})")
            continue
        answered = [_answered_for(clause, asked, who) for clause in clauses]
        failed = [clause for clause in answered if not clause.passed]
        if not failed:
            return _back(present, candidate, answered, (who, asked.reason), skipped)
        if asked.version:
            return _refused(present, candidate, answered, who)
        skipped.append(f"version {service.version} ({'; '.join(f'{c.name}: {c.actual}' for c in failed)})")
    if asked.version not in ("", BASE):
        raise ServiceHistoryError(f"there is no way back to {skipped[0]}")
    if not past[-1].version:
        tried = f"; skipped {', '.join(skipped)}" if skipped else ""
        raise ServiceHistoryError(
            "there is no champion to roll back: the base model serves, and no version that served before is left"
            f"{tried}"
        )
    return _back(present, PromotionCandidate(BASE, "", ""), [], (who, asked.reason), skipped)


def is_rollback(decision: Decision) -> bool:
    """Whether a decision is a person's wish to go back, not a judgement by the policy."""
    return any(clause.name == ROLLBACK for clause in decision.clauses)


def _asked_services(asked: Rollback, way: Sequence[Service]) -> Sequence[Service]:
    if not asked.version:
        return way
    if asked.version == BASE:
        return []
    if chosen := [service for service in way if service.version == asked.version]:
        return chosen
    known = ", ".join(service.version for service in way) or "none"
    raise ServiceHistoryError(
        f"a rollback goes to a version that served before the present one ({known}) or to base, not to version "
        f"{metadata_line(asked.version, 40)}: synth promote judges any other"
    )


def _examined(
    registry: Registry, service: Service, protections: Callable[[PromotionCandidate], Sequence[Clause]]
) -> tuple[PromotionCandidate | None, Sequence[Clause]]:
    """The version of a service with its clauses; None and the clause that says why where it cannot serve at all."""
    registered = "a version that an adapter asset registered"
    if not exists(registry, service):
        return None, [Clause("registered", passed=False, actual="deleted in MLflow", expected=registered)]
    try:
        candidate = promotion_candidate(registry, service.version)
    except KeyError as error:
        return None, [Clause("registered", passed=False, actual=str(error.args[0]), expected=registered)]
    return candidate, protections(candidate)


def _answered_for(clause: Clause, asked: Rollback, who: str) -> Clause:
    """A clause that fails holds where a person forces the rollback and it is about harm, not about missing files."""
    if clause.passed or not asked.force or clause.name == FILES:
        return clause
    return replace(clause, passed=True, actual=f"{clause.actual}; accepted by {who}: {asked.reason.strip()}")


def _present(registry: Registry, service: Service) -> PromotionCandidate:
    """The version that serves, whoever registered it."""
    tags = registry.version_tags(service.version) if service.version else {}
    return PromotionCandidate(
        tags.get("asset", "unknown") if service.version else BASE, service.version, service.fingerprint
    )


def _back(
    present: PromotionCandidate,
    candidate: PromotionCandidate,
    clauses: Sequence[Clause],
    asked_by: tuple[str, str],
    skipped: Sequence[str],
) -> Decision:
    who, reason = asked_by
    left = f"version {present.version}" if present.version else "the base model"
    where = f"version {candidate.version}" if candidate.version else "the base model"
    parts = [f"rolled back by {who} from {left} to {where}{': ' if reason.strip() else ''}{reason.strip()}"]
    if skipped:
        parts.append(f"skipped {', '.join(skipped)}")
    if not candidate.version:
        parts.append("no version that served before is left" if not skipped else "no other version served before")
    return Decision(
        outcome="promoted",
        candidate=candidate.name,
        candidate_version=candidate.version,
        opponent=present.name,
        opponent_version=present.version,
        clauses=[Clause(ROLLBACK, passed=True, actual=who, expected="a person who asks"), *clauses],
        reason="; ".join(parts),
    )


def _refused(
    present: PromotionCandidate, candidate: PromotionCandidate, clauses: Sequence[Clause], who: str
) -> Decision:
    failed = [f"{clause.name} ({clause.actual}; wanted {clause.expected})" for clause in clauses if not clause.passed]
    return Decision(
        outcome="refused",
        candidate=candidate.name,
        candidate_version=candidate.version,
        opponent=present.name,
        opponent_version=present.version,
        clauses=[Clause(ROLLBACK, passed=True, actual=who, expected="a person who asks"), *clauses],
        reason=f"refused by {', '.join(failed)}; a person may answer for it: --force --reason TEXT",
    )
