"""Roll back to a version that served before: choose it, check it and record what was skipped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from synth_assets.reporting.escaping import metadata_line
from synth_assets.schemas.records import BASE, Clause, Decision
from synth_assets.stages.promotion.candidates import Registry, promotion_candidate
from synth_assets.stages.promotion.policy import PromotionCandidate, failed_text
from synth_assets.stages.promotion.service_history import (
    Service,
    ServiceHistoryError,
    rollback_targets,
    services,
    version_exists,
)

ROLLBACK_CLAUSE = "rollback requested"
FILES_CLAUSE = "files intact"  # cannot be overridden: without its files a version cannot serve


@dataclass(frozen=True)
class RollbackRequest:
    """A person's request for a rollback.

    Args:
        version: a version that served before, or "base"; empty: the last one that may serve.
        force: accept that version although a clause that protects users fails.
        reason: reason of the rollback; required with `force`.
    """

    version: str = ""
    force: bool = False
    reason: str = ""


def rollback_decision(
    registry: Registry,
    who: str,
    request: RollbackRequest | None = None,
    protections: Callable[[PromotionCandidate], Sequence[Clause]] = lambda _: (),
) -> Decision:
    """Decide to return to the last version that served before, still exists and fails no clause.

    The base model serves if there is none. The reason lists each skipped version with its cause. A version that is
    requested by number is not skipped: the decision is refused if one of its clauses fails.

    Args:
        registry: the model registry.
        who: the person who requests it.
        request: the request; by default the last version that may serve.
        protections: returns the clauses that protect users of a version.

    Raises:
        ServiceHistoryError: no version served before, or the requested one did not.
    """
    request = request or RollbackRequest()
    if request.force and not (request.version and request.reason.strip()):
        raise ServiceHistoryError(
            "a forced rollback needs a version and a reason: synth rollback VERSION --force --reason TEXT"
        )
    history = services(registry)
    if not history:
        raise ServiceHistoryError("there is no champion to roll back: nothing was promoted yet")
    current, skipped = _serving_candidate(registry, history[-1]), list[str]()
    for service in _requested_services(request, rollback_targets(history)):
        candidate, clauses = _candidate_with_clauses(registry, service, protections)
        if candidate is None:
            skipped.append(f"version {service.version} ({clauses[0].actual})")
            continue
        accepted = [_with_force(clause, request, who) for clause in clauses]
        failed = [clause for clause in accepted if not clause.passed]
        if not failed:
            return _rolled_back(current, candidate, accepted, (who, request.reason), skipped)
        if request.version:
            return _refused(current, candidate, accepted, who)
        skipped.append(f"version {service.version} ({'; '.join(f'{c.name}: {c.actual}' for c in failed)})")
    if request.version not in ("", BASE):
        raise ServiceHistoryError(f"cannot roll back to {skipped[0]}")
    if not history[-1].version:
        tried = f"; skipped {', '.join(skipped)}" if skipped else ""
        raise ServiceHistoryError(
            "there is no champion to roll back: the base model serves, and no version that served before is left"
            f"{tried}"
        )
    return _rolled_back(current, PromotionCandidate(BASE, "", ""), [], (who, request.reason), skipped)


def is_rollback(decision: Decision) -> bool:
    """Return whether a decision is a rollback that a person requested, not one by the policy."""
    return any(clause.name == ROLLBACK_CLAUSE for clause in decision.clauses)


def _requested_services(request: RollbackRequest, targets: Sequence[Service]) -> Sequence[Service]:
    if not request.version:
        return targets
    if request.version == BASE:
        return []
    if matching := [service for service in targets if service.version == request.version]:
        return matching
    versions = ", ".join(service.version for service in targets) or "none"
    raise ServiceHistoryError(
        f"a rollback goes to a version that served before the present one ({versions}) or to base, got version "
        f"{metadata_line(request.version, 40)}: use synth promote for any other version"
    )


def _candidate_with_clauses(
    registry: Registry, service: Service, protections: Callable[[PromotionCandidate], Sequence[Clause]]
) -> tuple[PromotionCandidate | None, Sequence[Clause]]:
    """Return the version of a service with its clauses; None and the failed clause if it cannot serve at all."""
    expected = "a version that an adapter asset registered"
    if not version_exists(registry, service):
        return None, [Clause("registered", passed=False, actual="deleted in MLflow", expected=expected)]
    try:
        candidate = promotion_candidate(registry, service.version)
    except KeyError as error:
        return None, [Clause("registered", passed=False, actual=str(error.args[0]), expected=expected)]
    return candidate, protections(candidate)


def _with_force(clause: Clause, request: RollbackRequest, who: str) -> Clause:
    """Pass a failed clause if the rollback is forced, unless the clause is about missing files."""
    if clause.passed or not request.force or clause.name == FILES_CLAUSE:
        return clause
    return replace(clause, passed=True, actual=f"{clause.actual}; accepted by {who}: {request.reason.strip()}")


def _serving_candidate(registry: Registry, service: Service) -> PromotionCandidate:
    """Return the serving version, whoever registered it."""
    tags = registry.version_tags(service.version) if service.version else {}
    return PromotionCandidate(
        tags.get("asset", "unknown") if service.version else BASE, service.version, service.fingerprint
    )


def _rolled_back(
    current: PromotionCandidate,
    candidate: PromotionCandidate,
    clauses: Sequence[Clause],
    requested_by: tuple[str, str],
    skipped: Sequence[str],
) -> Decision:
    who, reason = requested_by
    source = f"version {current.version}" if current.version else "the base model"
    target = f"version {candidate.version}" if candidate.version else "the base model"
    parts = [f"rolled back by {who} from {source} to {target}{': ' if reason.strip() else ''}{reason.strip()}"]
    if skipped:
        parts.append(f"skipped {', '.join(skipped)}")
    if not candidate.version:
        parts.append("no version that served before is left" if not skipped else "no other version served before")
    return _decision(current, candidate, clauses, who, "; ".join(parts))


def _refused(
    current: PromotionCandidate, candidate: PromotionCandidate, clauses: Sequence[Clause], who: str
) -> Decision:
    reason = f"refused by {failed_text(clauses)}; to override it: --force --reason TEXT"
    return replace(_decision(current, candidate, clauses, who, reason), outcome="refused")


def _decision(
    current: PromotionCandidate, candidate: PromotionCandidate, clauses: Sequence[Clause], who: str, reason: str
) -> Decision:
    return Decision(
        outcome="promoted",
        candidate=candidate.name,
        candidate_version=candidate.version,
        opponent=current.name,
        opponent_version=current.version,
        clauses=[Clause(ROLLBACK_CLAUSE, passed=True, actual=who, expected="requested by a person"), *clauses],
        reason=reason,
    )
