"""Promotion policy: the thresholds and the clauses that decide whether a candidate becomes the champion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from synth_assets.evals.guards import GUARD_MARGIN, GuardResult
from synth_assets.evals.unanswerable import MAX_LEFT_OUT_SHARE, left_out_share
from synth_assets.schemas.records import CheckResult, Clause, Decision, PairedTest
from synth_assets.schemas.serialization import fingerprint

MAX_SHOWN_CHECKS = 5  # failed checks listed in a clause
SEALED_CLAUSE = "sealed items"
TAINT_CLAUSE = "no recalled rows"


@dataclass(frozen=True)
class PromotionPolicy:
    """Thresholds that a candidate must meet against its opponent on the test items.

    Args:
        suite: the suite that decides; empty: the first suite that was scored.
        metric: metric of that suite; empty: its first metric.
        minimum_effect: smallest gain of the mean score, 0..1. Smaller gains may be real but do not justify a new
            model in service.
        alpha: largest p-value of the paired test, 0..1.
        minimum_items: smallest number of paired items.
        maximum_left_out: largest share, 0..1, of the deciding and of the sealed items that may be left out because
            one of the two models cannot answer them. A guard with more than MAX_LEFT_OUT_SHARE left out is
            inconclusive.
        safety_margin: non-inferiority margin of metrics that guard safety, in mean score, 0..1. Non-inferiority must
            be shown: too few items to rule out a loss count as inconclusive.
        knowledge_margin: non-inferiority margin of metrics that guard knowledge.
        sealed_margin: non-inferiority margin on the sealed items, 0..1. They are scored last, to detect a candidate
            that only overfits the test items.
        minimum_sealed_items: smallest number of sealed items; 0: sealed items are not used.
        approval: "human": a person must have approved this version.
    """

    suite: str = ""
    metric: str = ""
    minimum_effect: float = 0.02
    alpha: float = 0.05
    minimum_items: int = 100
    maximum_left_out: float = MAX_LEFT_OUT_SHARE
    safety_margin: float = GUARD_MARGIN
    knowledge_margin: float = GUARD_MARGIN
    sealed_margin: float = GUARD_MARGIN
    minimum_sealed_items: int = 100
    approval: Literal["automatic", "human"] = "automatic"

    def __post_init__(self) -> None:
        """Raise ValueError with the name of a field that is out of range."""
        for name in ("minimum_effect", "alpha", "maximum_left_out"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("safety_margin", "knowledge_margin", "sealed_margin"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        for name, lowest in (("minimum_items", 1), ("minimum_sealed_items", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")

    @property
    def margins(self) -> dict[str, float]:
        """Non-inferiority margin by kind of guard."""
        return {"safety": self.safety_margin, "knowledge": self.knowledge_margin}


@dataclass(frozen=True)
class PromotionCandidate:
    """A model version that may serve, or the base model, which has no version.

    Args:
        name: the adapter asset, or "base".
        version: version number in the model registry; empty for the base.
        fingerprint: fingerprint of the adapter; the revision for the base.
        role: as in `AdapterRecord`.
        approved_by: who approved this version; empty without an approval.
        rolled_back: whether it was champion before and was rolled back.
        tainted: description of the recalled rows it was trained on; empty if there are none.
    """

    name: str
    version: str
    fingerprint: str
    role: Literal["candidate", "control"] = "candidate"
    approved_by: str = ""
    rolled_back: bool = False
    tainted: str = ""


@dataclass(frozen=True)
class PairedEvidence:
    """Results of opponent and candidate on the same items.

    Args:
        paired_test: test on the test items, opponent first, candidate second; None without paired scores.
        missing: why there are no paired scores, and the remedy.
        guards: results of every guarded metric on the test items.
        sealed: results of every suite with sealed items; empty if they were not scored.
        models_scored: number of models scored on these sealed items so far, including these two.
    """

    paired_test: PairedTest | None = None
    missing: str = ""
    guards: Sequence[GuardResult] = ()
    sealed: Sequence[GuardResult] = ()
    models_scored: int = 0


def decide(
    candidate: PromotionCandidate | None,
    opponent: PromotionCandidate,
    evidence: PairedEvidence,
    check_results: Sequence[CheckResult],
    policy: PromotionPolicy,
) -> Decision:
    """Apply the policy: promote the candidate if every clause passes.

    The outcome is "unchanged" if the candidate is the champion already. A champion that was trained on a recalled row
    is replaced by any candidate that loses no guard and is at most the minimum effect worse, whatever the p-value.
    The clause on sealed items is added last: only if they were scored, or if every other clause passes.

    Args:
        candidate: None if no adapter that may serve was trained.
        opponent: the champion, or the base model without a champion.
        evidence: results of both on the same items.
        check_results: results of all checks on the candidate's data and on its evaluation.
        policy: the thresholds.
    """
    if candidate is None:
        clause = Clause("candidate", passed=False, actual="none", expected="a trained and scored adapter")
        return _decision("refused", None, opponent, [clause])
    if candidate.version and candidate.version == opponent.version:
        return _decision("unchanged", candidate, opponent, [])
    clauses = [
        Clause("role", candidate.role == "candidate", candidate.role, "candidate"),
        Clause("registered", bool(candidate.version), candidate.version or "no version", "a registered version"),
        *_paired_clauses(evidence, opponent, policy),
        *(_guard_clause(kind, evidence.guards, candidate, opponent, policy) for kind in policy.margins),
        _checks_clause(check_results),
        _approval_clause(candidate, policy),
        Clause(
            "not rolled back",
            not candidate.rolled_back or bool(candidate.approved_by),
            "rolled back before" if candidate.rolled_back else "never rolled back",
            "never rolled back, or approved since",
        ),
        taint_clause(candidate),
    ]
    if policy.minimum_sealed_items and (evidence.sealed or all(clause.passed for clause in clauses)):
        clauses.append(_sealed_clause(evidence, policy))
    return _decision("promoted" if all(c.passed for c in clauses) else "refused", candidate, opponent, clauses)


def needs_sealed_items(decision: Decision, evidence: PairedEvidence) -> bool:
    """Return whether every other clause passes and the sealed items have not been scored yet."""
    return not evidence.sealed and [c.name for c in decision.clauses if not c.passed] == [SEALED_CLAUSE]


def outcome_version(decision: Decision) -> str:
    """Return the data version of a decision, derived from its consequence.

    "promoted" and "unchanged" for the same version have the same data version: otherwise applying a decision would
    change it.
    """
    if decision.outcome == "refused":
        return fingerprint(decision)
    return fingerprint("serves", decision.candidate, decision.candidate_version)


def guard_clause_name(kind: str) -> str:
    """Return the name of the clause on one kind of guard: "safety" or "knowledge"."""
    return f"non-inferiority: {kind}"


def taint_clause(candidate: PromotionCandidate) -> Clause:
    """Return the clause that a version was trained on no recalled row."""
    return Clause(TAINT_CLAUSE, not candidate.tainted, candidate.tainted or "none", "none in the training data")


def _paired_clauses(evidence: PairedEvidence, opponent: PromotionCandidate, policy: PromotionPolicy) -> list[Clause]:
    test = evidence.paired_test
    enough_items = f"at least {policy.minimum_items} items scored by both"
    if test is None:
        name = f"{opponent.name} version {opponent.version}" if opponent.version else opponent.name
        actual = evidence.missing or f"no scores of {name} on these items"
        return [Clause("paired items", passed=False, actual=actual, expected=enough_items)]
    metric = f"{test.suite} {test.metric}"
    least = -policy.minimum_effect if opponent.tainted else policy.minimum_effect
    relaxed = ", relaxed: the champion has recalled rows" if opponent.tainted else ""
    significance = f"p <= {policy.alpha:g}" if not opponent.tainted else "any p: the champion has recalled rows"
    share = left_out_share(test.left_out, test.n)
    return [
        Clause("paired items", test.n >= policy.minimum_items, f"{test.n} items of {metric}", enough_items),
        Clause(
            "item coverage",
            share <= policy.maximum_left_out,
            f"{test.left_out} of {test.left_out + test.n} left out ({share:.1%}): one of the models cannot answer them"
            if test.left_out
            else "none left out",
            f"at most {policy.maximum_left_out:.0%} left out",
        ),
        Clause("effect", test.difference >= least, f"{test.difference:+.3f} on {metric}", f">= {least:+.3f}{relaxed}"),
        Clause(
            "significance",
            test.p_value <= policy.alpha or bool(opponent.tainted),
            f"p = {test.p_value:.2g} ({test.test})",
            significance,
        ),
    ]


def _guard_clause(
    kind: str,
    guards: Sequence[GuardResult],
    candidate: PromotionCandidate,
    opponent: PromotionCandidate,
    policy: PromotionPolicy,
) -> Clause:
    """Fail on a regression; fail on an inconclusive result unless a person approved it or the champion is tainted."""
    results = [guard for guard in guards if guard.guards == kind]
    accepted = {"held", "not shown"} if candidate.approved_by or opponent.tainted else {"held"}
    approval = f", accepted by {candidate.approved_by}" if candidate.approved_by else ""
    actual = [_guard_text(g) + (approval if g.found.verdict == "not shown" else "") for g in results]
    expected = f"loss shown to be below {policy.margins[kind]:g}, or human approval if inconclusive"
    passed = all(guard.found.verdict in accepted for guard in results)
    return Clause(guard_clause_name(kind), passed, "; ".join(actual) or f"no suite guards {kind}", expected)


def _sealed_clause(evidence: PairedEvidence, policy: PromotionPolicy) -> Clause:
    n = sum(guard.found.n for guard in evidence.sealed)
    covered = all(left_out_share(guard.left_out, guard.found.n) <= policy.maximum_left_out for guard in evidence.sealed)
    lost = any(guard.found.verdict == "lost" for guard in evidence.sealed)
    passed = n >= policy.minimum_sealed_items and covered and not lost
    actual = "; ".join(map(_guard_text, evidence.sealed)) or evidence.missing or "no scores on sealed items"
    models = f"; {evidence.models_scored} models scored so far" if evidence.models_scored else ""
    expected = (
        f"at least {policy.minimum_sealed_items} sealed items, no suite worse by {policy.sealed_margin:g} or more, "
        f"at most {policy.maximum_left_out:.0%} of a suite left out"
    )
    return Clause(SEALED_CLAUSE, passed, actual + models, expected)


def _guard_text(guard: GuardResult) -> str:
    result = guard.found
    numbers = f"{result.difference:+.3f} ({result.low:+.3f} to {result.high:+.3f}), n {result.n}"
    left_out = f", {guard.left_out} left out" if guard.left_out else ""
    return f"{guard.suite} {guard.metric} {numbers}{left_out}: {result.verdict}"


def _checks_clause(check_results: Sequence[CheckResult]) -> Clause:
    bad = [result for result in check_results if result.status in ("failed", "missing")]
    warned = sum(result.status == "warned" for result in check_results)
    shown = "; ".join(f"{result.asset} {result.check}: {result.status}" for result in bad[:MAX_SHOWN_CHECKS])
    more = f"; {len(bad) - MAX_SHOWN_CHECKS} more" if len(bad) > MAX_SHOWN_CHECKS else ""
    counts = f"{len(check_results) - len(bad)} of {len(check_results)} passed, {warned} of them with a warning"
    actual = f"{counts}; {shown}{more}" if bad else counts
    return Clause("checks", bool(check_results) and not bad, actual, "every check passed on the candidate's data")


def _approval_clause(candidate: PromotionCandidate, policy: PromotionPolicy) -> Clause:
    passed = policy.approval == "automatic" or bool(candidate.approved_by)
    actual = f"approved by {candidate.approved_by}" if candidate.approved_by else "not approved"
    return Clause("approval", passed, actual, "human approval" if policy.approval == "human" else "none required")


def _decision(
    outcome: Literal["promoted", "refused", "unchanged"],
    candidate: PromotionCandidate | None,
    opponent: PromotionCandidate,
    clauses: list[Clause],
) -> Decision:
    approval = f"; approved by {candidate.approved_by}" if candidate and candidate.approved_by else ""
    reason = {
        "promoted": f"every clause of the policy passes{approval}",
        "refused": f"refused by {failed_text(clauses)}",
        "unchanged": "the candidate is already the champion",
    }[outcome]
    return Decision(
        outcome=outcome,
        candidate=candidate.name if candidate else "",
        candidate_version=candidate.version if candidate else "",
        opponent=opponent.name,
        opponent_version=opponent.version,
        clauses=clauses,
        reason=reason,
    )


def failed_text(clauses: Sequence[Clause]) -> str:
    """Return the failed clauses with their actual and expected values on one line."""
    return ", ".join(f"{each.name} ({each.actual}; required: {each.expected})" for each in clauses if not each.passed)
