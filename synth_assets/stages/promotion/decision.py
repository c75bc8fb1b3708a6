"""Decide one promotion or rollback, and store the decision with the model version it is about."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import polars as pl

from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import (
    RowFolders,
    adapter_record,
    attach_card,
    decisions_on,
    keep_decision,
    model_version,
)
from synth_assets.schemas.records import (
    BASE,
    AdapterRecord,
    AuditEntry,
    ChampionRecord,
    CheckResult,
    Comparison,
    Decision,
    RecordedDecision,
)
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.promotion.alias import evidence_tags
from synth_assets.stages.promotion.candidates import (
    CHALLENGER,
    Scores,
    VersionError,
    compared_candidate,
    promotion_candidate,
    version_number,
)
from synth_assets.stages.promotion.model_card import SCORE, model_card
from synth_assets.stages.promotion.on_demand_scoring import OnDemandScorer
from synth_assets.stages.promotion.paired_evidence import evaluate_promotion
from synth_assets.stages.promotion.policy import PromotionCandidate, PromotionPolicy, outcome_version
from synth_assets.stages.promotion.rollback import RollbackRequest, is_rollback, rollback_decision
from synth_assets.stages.promotion.service_history import ServiceHistoryError, serving_version, version_before
from synth_assets.stages.promotion.user_protection import stored_protections, with_taint

DECISION_CODE_VERSION = fingerprint(PromotionPolicy())
EVALUATION_ASSETS = ("comparison", "benchmark_scores", "benchmark_items", "base_model")


@dataclass(frozen=True)
class PromotionRequest:
    """Options of one decision, as in `PromotionConfig`; by default the comparison's candidate is evaluated."""

    version: str = ""
    approve: bool = False
    rollback: bool = False
    force: bool = False
    reason: str = ""
    adopt: bool = False
    policy: PromotionPolicy = field(default_factory=PromotionPolicy)

    def conflict(self) -> str:
        """Return which options exclude one another; empty if none do."""
        if self.rollback and (self.adopt or self.approve):
            return "rollback goes with version, force and reason only, not with adopt or approve"
        if self.adopt and self.version:
            return "adopt evaluates the version that @champion points to: leave version unset"
        if (self.force or self.reason.strip()) and not self.rollback:
            return "force and reason require rollback: set rollback as well"
        return ""


class HomeFolders(RowFolders, Protocol):
    """The folders of a home with the recall log, the row manifests and the adapters."""

    def adapters(self) -> Path:
        """Return the folder of the adapters, by fingerprint."""
        ...


@dataclass(frozen=True)
class PromotionContext:
    """Inputs and services of a decision.

    Args:
        tracker: the model registry.
        comparison: the newest comparison.
        scores: ITEM_SCORES of today.
        adapters: record of each adapter asset.
        scorer: builds the scorer of missing items.
        folders: folders of the recall log, the row manifests and the adapters.
        adapter_versions: returns the data versions behind an adapter's data version.
        upstream_versions: returns the data versions behind today's decision.
        checks: returns the results of all checks on these data versions.
    """

    tracker: MlflowTracker
    comparison: Comparison
    scores: pl.DataFrame
    adapters: Mapping[str, AdapterRecord]
    scorer: Callable[[], OnDemandScorer]
    folders: HomeFolders
    adapter_versions: Callable[[str, str], Mapping[str, str]]
    upstream_versions: Callable[[], Mapping[str, str]]
    checks: Callable[[Mapping[str, str]], list[CheckResult]]


@dataclass(frozen=True)
class DecisionReport:
    """A decision, the number of checks behind it by status, and the model card, empty if none was written."""

    decision: Decision
    checks: Mapping[str, int] = field(default_factory=dict)
    card: str = ""

    @property
    def data_version(self) -> str:
        """Data version of the decision: its outcome."""
        return outcome_version(self.decision)


def decide_promotion(request: PromotionRequest, context: PromotionContext, audit: AuditEntry) -> DecisionReport:
    """Decide a promotion or a rollback; a promotion's decision is stored with the candidate's version.

    Raises:
        ServiceHistoryError: the options conflict, or there is no such version.
    """
    tracker = context.tracker
    if problem := request.conflict():
        raise ServiceHistoryError(problem)
    newest = {name: record.model_version for name, record in context.adapters.items()}
    version = _requested_version(tracker, request, newest)
    if request.rollback:
        rollback = RollbackRequest(version, request.force, request.reason)
        protections = stored_protections(tracker, context.folders, context.folders.adapters(), request.policy)
        return DecisionReport(rollback_decision(tracker, audit.who, rollback, protections))
    candidate, opponent = _candidate_and_opponent(request, version, context, audit)
    scores = Scores(tracker, context.scores, context.comparison, context.scorer())
    check_results: list[CheckResult] = []
    data_versions: dict[str, str] = {}
    if candidate:
        data_versions = _data_versions(context, candidate, scored=scores.has(candidate))
        check_results = context.checks(data_versions)
    decision = evaluate_promotion(candidate, opponent, scores, check_results, request.policy)
    checks = dict(Counter(result.status for result in check_results))
    if not (candidate and candidate.version and candidate.role == "candidate"):
        return DecisionReport(decision, checks)
    card = store_decision(tracker, decision, audit, (checks, data_versions), challenger=not request.adopt)
    return DecisionReport(decision, checks, card)


def _requested_version(tracker: MlflowTracker, request: PromotionRequest, newest: Mapping[str, str]) -> str:
    """Return the requested version's number, "base" for a rollback to the base model, or "" for none."""
    requested = request.version.strip()
    if not requested or (request.rollback and requested == BASE):
        return requested
    try:
        return version_number(tracker, requested, newest)
    except VersionError as error:
        raise ServiceHistoryError(str(error)) from None


def _candidate_and_opponent(
    request: PromotionRequest, version: str, context: PromotionContext, audit: AuditEntry
) -> tuple[PromotionCandidate | None, PromotionCandidate]:
    """Return the version to evaluate and the version to compare it with."""
    tracker, approved_by = context.tracker, audit.who if request.approve else ""
    serving = serving_version(tracker)
    try:
        if request.adopt:
            candidate = promotion_candidate(tracker, serving) if serving else None
            opponent = promotion_candidate(tracker, version_before(tracker))
        else:
            candidate = promotion_candidate(tracker, version, approved_by) if version else None
            opponent = promotion_candidate(tracker, serving)
    except KeyError as error:
        raise ServiceHistoryError(f"{error.args[0]}: take it out of service with synth rollback") from None
    if not version and not request.adopt:
        candidate = compared_candidate(tracker, context.comparison, list(context.adapters.values()), approved_by)
    tainted = partial(with_taint, tracker, context.folders)
    return candidate and tainted(candidate), tainted(opponent)


def _data_versions(context: PromotionContext, candidate: PromotionCandidate, *, scored: bool) -> dict[str, str]:
    """Return data versions of the candidate, of everything upstream, and, if `scored`, of today's evaluation."""
    if not candidate.version:
        return {}
    registered = model_version(context.tracker, candidate.version)
    own, manifest = registered.data_version, registered.data_versions
    versions = {**context.adapter_versions(candidate.name, own), **manifest, candidate.name: own}
    if scored:
        evaluation = {n: v for n, v in context.upstream_versions().items() if n in EVALUATION_ASSETS}
        versions |= {n if versions.get(n, v) == v else f"{n}@{v}": v for n, v in evaluation.items()}
    return versions


def store_decision(
    tracker: MlflowTracker,
    decision: Decision,
    audit: AuditEntry,
    evidence: tuple[Mapping[str, int], Mapping[str, str]],
    *,
    challenger: bool,
) -> str:
    """Store a decision with its version: alias, tags, list of decisions, model card. Return the card.

    Only the alias changes if the version serves already: its evidence stays that of the decision by which it serves.

    Args:
        tracker: the model registry.
        decision: about a registered version.
        audit: who requested it.
        evidence: number of checks by status, and data versions behind the candidate.
        challenger: whether to point `@challenger` to the version.
    """
    version, (checks, data_versions) = decision.candidate_version, evidence
    summary = {} if decision.outcome == "unchanged" else evidence_tags(decision, audit, checks)
    if challenger:
        tracker.set_alias(CHALLENGER, version, summary)
    elif summary and not is_rollback(decision):
        tracker.tag_version(version, summary)
    if decision.outcome == "unchanged":
        return ""
    tags = tracker.version_tags(version)
    scores = {name: text for name, text in tags.items() if name.startswith(SCORE)}
    recorded = RecordedDecision(decision, audit.who, audit.when, audit.run_id, checks, scores)
    earlier = keep_decision(tracker, version, recorded)[:-1]
    upstream = data_versions or model_version(tracker, version).data_versions
    card = model_card(adapter_record(tracker, version), tags, decision, checks, upstream, earlier)
    attach_card(tracker, version, card)
    return card


def with_stored_clauses(tracker: MlflowTracker, record: ChampionRecord) -> ChampionRecord:
    """Return the record with the clauses stored with its version, if a killed run moved the alias without them."""
    if not record.version or record.clauses:
        return record
    stored = [entry for entry in decisions_on(tracker, record.version) if entry.run_id == record.dagster_run_id]
    return replace(record, clauses=[clause for entry in stored for clause in entry.decision.clauses])
