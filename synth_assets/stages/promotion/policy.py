"""When a candidate becomes the champion: the whole policy, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from synth_assets.evals.guards import GUARD_MARGIN, GuardResult
from synth_assets.evals.unanswerable import MAX_LEFT_OUT_SHARE, left_out_share
from synth_assets.schemas.records import CheckResult, Clause, Decision, PairedTest
from synth_assets.schemas.serialization import fingerprint

SHOWN_CHECKS = 5  # of those that failed, in a clause's text
SEALED_CLAUSE = "sealed items"


@dataclass(frozen=True)
class PromotionPolicy:
    """What a candidate must show against its opponent on the test items.

    Args:
        suite: the suite that decides; empty: the first suite that was scored.
        metric: of that suite; empty: its first.
        minimum_effect: how much better the mean score must be at least, 0..1. Smaller gains are real at times and
            not worth a new model in service.
        alpha: the paired test's p-value must not exceed it.
        minimum_items: fewer paired items show nothing.
        maximum_left_out: of the items that decide and of the sealed ones, the share, 0..1, that may be left out
            because one of the two models cannot take them. With more the suite is no basis for a decision. A guard
            of which more than MAX_LEFT_OUT_SHARE is left out is not shown to hold.
        safety_margin: how much of a mean score that guards safety may be lost, 0..1. That no more is lost must be
            shown: a harm that few items cannot rule out is not ruled out.
        knowledge_margin: the same for knowledge.
        sealed_margin: how much worse a candidate may be on the sealed items, 0..1. A candidate that comes so far has
            shown that it is better; they are asked only whether that was an accident of items seen too often.
        minimum_sealed_items: fewer confirm nothing; 0: sealed items are not asked.
        approval: "human": a person must have said yes to this very version.
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
        """ValueError naming the field."""
        for name in ("minimum_effect", "alpha", "maximum_left_out"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} lies within 0..1, not {getattr(self, name)}")
        for name in ("safety_margin", "knowledge_margin", "sealed_margin"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} lies within (0, 1], not {getattr(self, name)}")
        for name, lowest in (("minimum_items", 1), ("minimum_sealed_items", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is at least {lowest}, not {getattr(self, name)}")

    @property
    def margins(self) -> dict[str, float]:
        """What a suite may guard, to how much of it may be lost."""
        return {"safety": self.safety_margin, "knowledge": self.knowledge_margin}


@dataclass(frozen=True)
class PromotionCandidate:
    """A version that may serve; the base model has no version.

    Args:
        name: the adapter asset, or "base".
        version: of the registered model.
        fingerprint: of the adapter; the revision for the base.
        role: as in `AdapterRecord`.
        approved_by: who said yes to this version; empty where nobody did.
        rolled_back: it was champion and was taken back.
        tainted: which recalled rows it was trained on; empty where there is none.
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
    """What opponent and candidate did on the same items.

    Args:
        duel: opponent first, candidate second, on the test items; None where there are no such scores.
        missing: why there are none, and what to do.
        guards: of every metric that guards something, on the test items.
        sealed: of every suite with sealed items; empty where they were not asked.
        models_asked: how many models these sealed items have judged so far, these two among them.
    """

    duel: PairedTest | None = None
    missing: str = ""
    guards: Sequence[GuardResult] = ()
    sealed: Sequence[GuardResult] = ()
    models_asked: int = 0


def decide(
    candidate: PromotionCandidate | None,
    opponent: PromotionCandidate,
    trial: PairedEvidence,
    verdicts: Sequence[CheckResult],
    policy: PromotionPolicy,
) -> Decision:
    """Promoted where every clause holds; `unchanged` where the candidate is the champion already.

    A champion that was trained on a recalled row is replaced by whoever is not clearly worse: by no more than the
    minimum effect, whatever the p-value, and where no guard is lost.

    Sealed items are asked last: their clause is there where they were asked, or where nothing else speaks against the
    candidate.

    Args:
        candidate: None where no adapter was trained that may serve.
        opponent: the champion, or the base model where there is none.
        trial: what both did on the same items.
        verdicts: of all checks on the data that made the candidate and on what measured it.
        policy: the thresholds.
    """
    if candidate is None:
        clause = Clause("candidate", passed=False, actual="none", expected="an adapter that was trained and scored")
        return _decision("refused", None, opponent, [clause])
    if candidate.version and candidate.version == opponent.version:
        return _decision("unchanged", candidate, opponent, [])
    clauses = [
        Clause("role", candidate.role == "candidate", candidate.role, "candidate"),
        Clause("registered", bool(candidate.version), candidate.version or "no version", "a registered version"),
        *_measured(trial, opponent, policy),
        *(_guarded(kind, trial.guards, candidate, opponent, policy) for kind in policy.margins),
        _checked(verdicts),
        _approved(candidate, policy),
        Clause(
            "not rolled back",
            not candidate.rolled_back or bool(candidate.approved_by),
            "rolled back before" if candidate.rolled_back else "never rolled back",
            "never rolled back, or approved since",
        ),
        Clause("not tainted", not candidate.tainted, candidate.tainted or "no recalled row", "no recalled row in it"),
    ]
    if policy.minimum_sealed_items and (trial.sealed or all(clause.passed for clause in clauses)):
        clauses.append(_sealed(trial, policy))
    return _decision("promoted" if all(c.passed for c in clauses) else "refused", candidate, opponent, clauses)


def needs_sealed_items(decision: Decision, trial: PairedEvidence) -> bool:
    """Whether only the sealed items, which were not asked yet, stand between the candidate and its promotion."""
    return not trial.sealed and [c.name for c in decision.clauses if not c.passed] == [SEALED_CLAUSE]


def outcome_version(decision: Decision) -> str:
    """The data version of a decision: what follows from it.

    Who is promoted and who is found to be champion already is the same outcome, or carrying a decision out would
    change it.
    """
    if decision.outcome == "refused":
        return fingerprint(decision)
    return fingerprint("serves", decision.candidate, decision.candidate_version)


def _measured(trial: PairedEvidence, opponent: PromotionCandidate, policy: PromotionPolicy) -> list[Clause]:
    duel = trial.duel
    wanted = f"at least {policy.minimum_items} items scored by both"
    if duel is None:
        shown = f"{opponent.name} version {opponent.version}" if opponent.version else opponent.name
        found = trial.missing or f"no scores of {shown} on these items"
        return [Clause("same items", passed=False, actual=found, expected=wanted)]
    where = f"{duel.suite} {duel.metric}"
    least = -policy.minimum_effect if opponent.tainted else policy.minimum_effect
    relieved = " of a champion that must go: it is tainted" if opponent.tainted else ""
    by_chance = f"p <= {policy.alpha:g}" if not opponent.tainted else "any p: the champion is tainted"
    share = left_out_share(duel.left_out, duel.n)
    return [
        Clause("same items", duel.n >= policy.minimum_items, f"{duel.n} items of {where}", wanted),
        Clause(
            "items answered",
            share <= policy.maximum_left_out,
            f"{duel.left_out} of {duel.left_out + duel.n} left out ({share:.1%}): one of the two cannot take them"
            if duel.left_out
            else "none left out",
            f"at most {policy.maximum_left_out:.0%} left out",
        ),
        Clause("effect", duel.difference >= least, f"{duel.difference:+.3f} on {where}", f">= {least:+.3f}{relieved}"),
        Clause(
            "not by chance",
            duel.p_value <= policy.alpha or bool(opponent.tainted),
            f"p = {duel.p_value:.2g} ({duel.test})",
            by_chance,
        ),
    ]


def _guarded(
    kind: str,
    guards: Sequence[GuardResult],
    candidate: PromotionCandidate,
    opponent: PromotionCandidate,
    policy: PromotionPolicy,
) -> Clause:
    """Lost fails; not shown fails as well, unless a person answers for it or the champion must go."""
    mine = [guard for guard in guards if guard.guards == kind]
    borne = {"held", "not shown"} if candidate.approved_by or opponent.tainted else {"held"}
    accepted = f", accepted by {candidate.approved_by}" if candidate.approved_by else ""
    found = [_kept(g) + (accepted if g.found.verdict == "not shown" else "") for g in mine]
    wanted = f"shown to lose less than {policy.margins[kind]:g}, or not shown to and approved by a person"
    passed = all(guard.found.verdict in borne for guard in mine)
    return Clause(f"{kind} kept", passed, "; ".join(found) or f"no suite guards {kind}", wanted)


def _sealed(trial: PairedEvidence, policy: PromotionPolicy) -> Clause:
    n = sum(one.found.n for one in trial.sealed)
    answered = all(left_out_share(one.left_out, one.found.n) <= policy.maximum_left_out for one in trial.sealed)
    kept = all(one.found.verdict != "lost" for one in trial.sealed)
    passed = n >= policy.minimum_sealed_items and answered and kept
    found = "; ".join(map(_kept, trial.sealed)) or trial.missing or "no scores on sealed items"
    asked = f"; {trial.models_asked} models asked so far" if trial.models_asked else ""
    wanted = (
        f"at least {policy.minimum_sealed_items} sealed items, on none of their suites {policy.sealed_margin:g} worse, "
        f"at most {policy.maximum_left_out:.0%} of a suite left out"
    )
    return Clause(SEALED_CLAUSE, passed, found + asked, wanted)


def _kept(one: GuardResult) -> str:
    found = one.found
    numbers = f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}), n {found.n}"
    left_out = f", {one.left_out} left out" if one.left_out else ""
    return f"{one.suite} {one.metric} {numbers}{left_out}: {found.verdict}"


def _checked(verdicts: Sequence[CheckResult]) -> Clause:
    bad = [verdict for verdict in verdicts if verdict.status in ("failed", "missing")]
    warned = sum(verdict.status == "warned" for verdict in verdicts)
    shown = "; ".join(f"{v.asset} {v.check}: {v.status}" for v in bad[:SHOWN_CHECKS])
    more = f"; {len(bad) - SHOWN_CHECKS} more" if len(bad) > SHOWN_CHECKS else ""
    good = f"{len(verdicts) - len(bad)} of {len(verdicts)} passed, {warned} of them with a warning"
    found = f"{good}; {shown}{more}" if bad else good
    return Clause("checks", bool(verdicts) and not bad, found, "every check passed on the data of the candidate")


def _approved(candidate: PromotionCandidate, policy: PromotionPolicy) -> Clause:
    passed = policy.approval == "automatic" or bool(candidate.approved_by)
    found = f"approved by {candidate.approved_by}" if candidate.approved_by else "nobody was asked"
    return Clause("approval", passed, found, "a person's yes" if policy.approval == "human" else "none needed")


def _decision(
    outcome: Literal["promoted", "refused", "unchanged"],
    candidate: PromotionCandidate | None,
    opponent: PromotionCandidate,
    clauses: list[Clause],
) -> Decision:
    failed = [f"{clause.name} ({clause.actual}; wanted {clause.expected})" for clause in clauses if not clause.passed]
    yes = f"; approved by {candidate.approved_by}" if candidate and candidate.approved_by else ""
    reason = {
        "promoted": f"every clause of the policy holds{yes}",
        "refused": f"refused by {', '.join(failed)}",
        "unchanged": "the candidate is the champion already",
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
