"""Clauses that a rollback checks to protect users: no recalled rows, no lost guard, intact files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from synth_assets.evals.guards import GuardResult, losses
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import RowFolders, decisions_on, ensure_adapter, taint
from synth_assets.registry.retry import TrackingError
from synth_assets.schemas.records import BASE, Clause, RecordedDecision
from synth_assets.stages.promotion.candidates import Registry
from synth_assets.stages.promotion.model_card import attached_scores
from synth_assets.stages.promotion.policy import PromotionCandidate, PromotionPolicy, guard_clause_name, taint_clause
from synth_assets.stages.promotion.rollback import FILES_CLAUSE, is_rollback
from synth_assets.storage.lineage import LineageError


@dataclass(frozen=True)
class VersionEvidence:
    """Stored evidence about a version.

    Args:
        decisions: the decisions about it, oldest first.
        guards: its guard results against the base on the items of its stored scores; None without scores.
        files_problem: why its files cannot be used; empty if they are as registered.
    """

    decisions: Sequence[RecordedDecision]
    guards: Sequence[GuardResult] | None
    files_problem: str


def protection_clauses(
    candidate: PromotionCandidate, evidence: VersionEvidence, policy: PromotionPolicy
) -> list[Clause]:
    """Return the clauses on recalled rows, guards and files.

    A guard that passed when the version was promoted passes, unless newer scores show a loss against the base. For a
    version that was never promoted, the last decision counts. No model is run, so that a rollback never waits.
    """
    return [
        taint_clause(candidate),
        *(_guard_clause(kind, evidence) for kind in policy.margins),
        Clause(FILES_CLAUSE, not evidence.files_problem, evidence.files_problem or "as registered", "as registered"),
    ]


def with_taint(tracker: MlflowTracker, folders: RowFolders, candidate: PromotionCandidate) -> PromotionCandidate:
    """Return the candidate with a description of the recalled rows it was trained on."""
    if not candidate.version:
        return candidate
    return replace(candidate, tainted=candidate.tainted or taint(tracker, folders, candidate.version))


def stored_protections(
    tracker: MlflowTracker, folders: RowFolders, adapters: Path, policy: PromotionPolicy
) -> Callable[[PromotionCandidate], list[Clause]]:
    """Return the function that gives the clauses of a version from stored evidence; missing files are restored.

    Args:
        tracker: the model registry.
        folders: folders of the recall log and of the row manifests.
        adapters: folder of the adapters by fingerprint.
        policy: the margins.
    """

    def clauses_of(candidate: PromotionCandidate) -> list[Clause]:
        version, fingerprint = candidate.version, candidate.fingerprint
        problem = ""
        try:
            ensure_adapter(tracker, version, adapters / fingerprint)
        except LineageError as error:
            problem = str(error)
        guards = measured_guards(tracker, version, fingerprint, policy, lambda run_id: _readable_items(tracker, run_id))
        evidence = VersionEvidence(decisions_on(tracker, version), guards, problem)
        return protection_clauses(with_taint(tracker, folders, candidate), evidence, policy)

    return clauses_of


def _readable_items(tracker: MlflowTracker, run_id: str) -> pl.DataFrame | None:
    from mlflow.exceptions import MlflowException

    try:
        return tracker.scored_items(run_id)
    except (MlflowException, TrackingError, OSError, ValueError):
        return None


def measured_guards(
    registry: Registry,
    version: str,
    fingerprint: str,
    policy: PromotionPolicy,
    scored_items: Callable[[str], pl.DataFrame | None],
) -> list[GuardResult] | None:
    """Return a version's guard results against the base on the items of its stored scores; None without scores.

    Args:
        registry: the model registry.
        version: version number.
        fingerprint: fingerprint of its adapter.
        policy: the margins.
        scored_items: returns the per-item table of an MLflow run, None if it cannot be read.
    """
    runs = dict.fromkeys(
        str(score.facts["run_id"]) for score in attached_scores(registry.version_tags(version)) if score.split == "test"
    )
    tables = [scores for run in runs if (scores := scored_items(run)) is not None]
    if not tables:
        return None
    return [
        guard
        for scores in tables
        for guard in losses(scores.filter(model=BASE), scores.filter(fingerprint=fingerprint), policy.margins)
    ]


def _guard_clause(kind: str, evidence: VersionEvidence) -> Clause:
    name, expected = guard_clause_name(kind), f"{kind} passed in its decision, and not lost against the base since"
    results = [guard for guard in evidence.guards or [] if guard.guards == kind]
    if lost := [guard for guard in results if guard.found.verdict == "lost"]:
        actual = "; ".join(f"{g.suite} {g.metric} {g.found.difference:+.3f} against the base: lost" for g in lost)
        return Clause(name, passed=False, actual=actual, expected=expected)
    if decided := _last_clause(name, evidence.decisions):
        when, clause = decided
        return Clause(name, clause.passed, f"{clause.actual} (decided {when[:10]})", expected)
    if evidence.guards is None:
        return Clause(name, passed=False, actual="no decision about it and no scores", expected=expected)
    actual = "; ".join(f"{g.suite} {g.metric}: {g.found.verdict}" for g in results)
    return Clause(name, passed=True, actual=actual or f"no suite guards {kind}", expected=expected)


def _last_clause(name: str, decisions: Sequence[RecordedDecision]) -> tuple[str, Clause] | None:
    """Return the time of the last decision with this clause, and the clause; promotions take precedence."""
    decided = [
        (record, clause)
        for record in decisions
        if not is_rollback(record.decision)
        for clause in record.decision.clauses
        if clause.name == name
    ]
    promoted = [(record, clause) for record, clause in decided if record.decision.outcome == "promoted"]
    last = (promoted or decided)[-1:]
    return (last[0][0].at, last[0][1]) if last else None
