"""The clauses that protect users of a version that a rollback goes back to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from synth_assets.evals.guards import GuardResult, losses
from synth_assets.schemas.records import BASE, Clause, RecordedDecision
from synth_assets.stages.promotion.candidates import Registry
from synth_assets.stages.promotion.model_card import attached_scores
from synth_assets.stages.promotion.policy import PromotionCandidate, PromotionPolicy
from synth_assets.stages.promotion.rollback import FILES, is_rollback


@dataclass(frozen=True)
class Known:
    """What is known of a version without asking it again.

    Args:
        judged: the decisions on it, oldest first.
        measured: each of its guards against the base on the items of its stored scores; None where it has none.
        files: why it cannot serve; empty where its files are as they were registered.
    """

    judged: Sequence[RecordedDecision]
    measured: Sequence[GuardResult] | None
    files: str


def protections(candidate: PromotionCandidate, known: Known, policy: PromotionPolicy) -> list[Clause]:
    """No recalled row in it, no guard lost, its files intact.

    A guard that held when the version was promoted holds, unless newer scores show it lost against the base. Of a
    version that was never promoted the last decision counts. Nothing is asked of a model: a rollback does not wait.
    """
    return [
        Clause("not tainted", not candidate.tainted, candidate.tainted or "no recalled row", "no recalled row in it"),
        *(_guarded(kind, known) for kind in policy.margins),
        Clause(FILES, not known.files, known.files or "as they were registered", "files as they were registered"),
    ]


def measured_guards(
    registry: Registry,
    version: str,
    fingerprint: str,
    policy: PromotionPolicy,
    scored_items: Callable[[str], pl.DataFrame | None],
) -> list[GuardResult] | None:
    """A version's guards against the base on the items of its stored scores; None where none can be read.

    Args:
        registry: holds the version.
        version: its number.
        fingerprint: of its adapter.
        policy: the margins.
        scored_items: the per-item table of an MLflow run; None where it cannot be read.
    """
    runs = dict.fromkeys(
        str(score.facts["run_id"]) for score in attached_scores(registry.version_tags(version)) if score.split == "test"
    )
    tables = [table for run in runs if (table := scored_items(run)) is not None]
    if not tables:
        return None
    return [
        guard
        for table in tables
        for guard in losses(table.filter(model=BASE), table.filter(fingerprint=fingerprint), policy.margins)
    ]


def _guarded(kind: str, known: Known) -> Clause:
    name, wanted = f"{kind} kept", f"{kind} held when it was judged, and not lost against the base since"
    measured = [guard for guard in known.measured or [] if guard.guards == kind]
    if lost := [guard for guard in measured if guard.found.verdict == "lost"]:
        shown = "; ".join(f"{g.suite} {g.metric} {g.found.difference:+.3f} against the base: lost" for g in lost)
        return Clause(name, passed=False, actual=shown, expected=wanted)
    if decided := _decided(name, known.judged):
        when, clause = decided
        return Clause(name, clause.passed, f"{clause.actual} (judged {when[:10]})", wanted)
    if known.measured is None:
        return Clause(name, passed=False, actual="it was neither judged nor scored", expected=wanted)
    shown = "; ".join(f"{g.suite} {g.metric}: {g.found.verdict}" for g in measured)
    return Clause(name, passed=True, actual=shown or f"no suite guards {kind}", expected=wanted)


def _decided(name: str, judged: Sequence[RecordedDecision]) -> tuple[str, Clause] | None:
    """When a clause was last decided on, and the clause; a decision that promoted the version counts before others."""
    decided = [
        (one, clause)
        for one in judged
        if not is_rollback(one.decision)
        for clause in one.decision.clauses
        if clause.name == name
    ]
    promoted = [(one, clause) for one, clause in decided if one.decision.outcome == "promoted"]
    last = (promoted or decided)[-1:]
    return (last[0][0].at, last[0][1]) if last else None
