"""Assets of the stage promotion: the decision with its clauses, and the version that serves."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

import dagster as dg
import polars as pl
from pydantic import Field

from resources.check_results import CheckResults, adapter_versions, json_metadata, upstream_versions
from resources.deployment import person
from resources.evaluated_models import load_evaluated_model
from resources.gpu_slots import gpu_slot
from resources.inference import Inference
from resources.step_meter import step_meter
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec
from synth_assets.evals.suite import SEALED
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import (
    adapter_record,
    attach_card,
    decisions_on,
    ensure_adapter,
    keep_decision,
    model_version,
    restore_adapter,
    runs_with,
    taint,
)
from synth_assets.registry.retry import TrackingError
from synth_assets.reporting.escaping import first_sections, metadata_line
from synth_assets.schemas.records import (
    BASE,
    AdapterRecord,
    ChampionRecord,
    CheckResult,
    Clause,
    Comparison,
    Decision,
    Metric,
    ModelRecord,
    RecordedDecision,
)
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.promotion.alias import AuditEntry, apply_decision, evidence_tags
from synth_assets.stages.promotion.candidates import (
    ASKED_AGAIN,
    CHALLENGER,
    CHAMPION,
    Scores,
    VersionError,
    compared_candidate,
    promotion_candidate,
    version_number,
)
from synth_assets.stages.promotion.model_card import SCORE, attached_scores, clause_table, model_card
from synth_assets.stages.promotion.on_demand_scoring import OnDemandScorer, WeightsError
from synth_assets.stages.promotion.paired_evidence import evaluate_promotion
from synth_assets.stages.promotion.policy import PromotionCandidate, PromotionPolicy, outcome_version
from synth_assets.stages.promotion.rollback import Rollback, is_rollback, rollback_decision
from synth_assets.stages.promotion.service_history import ServiceHistoryError, serving_version, version_before
from synth_assets.stages.promotion.user_protection import Known, measured_guards, protections
from synth_assets.storage.lineage import LineageError
from synth_assets.storage.manifests import ManifestError, content_hash
from synth_assets.training.methods import ADAPTERS

LOW_PRIORITY = {"dagster/priority": "-100"}  # the other ready steps go first, the checks of the same run among them
MEASURED_BY = ("comparison", "benchmark_scores", "benchmark_items", "base_model")
SEALED_TAG = "sealed_items"  # of the MLflow runs that hold scores on them: which sealed items
ADAPTER_INS = {name: dg.AssetIn(dagster_type=AdapterRecord) for name in ADAPTERS}


class PromotionConfig(dg.Config):
    """What a person asks of one decision; without anything the comparison's candidate is judged."""

    version: str | None = Field(
        default=None,
        description="Number, alias or adapter of the version to judge instead of the comparison's candidate.",
    )
    approve: bool = Field(
        default=False, description="Approve the version where a guard is inconclusive or approval is required."
    )
    rollback: bool = Field(
        default=False, description="Return to the last version that served, exists and fails no clause."
    )
    force: bool = Field(
        default=False, description="With rollback, version and reason: also where a clause of it fails."
    )
    reason: str = Field(default="", description="Reason of a rollback.")
    adopt: bool = Field(default=False, description="Judge the version that @champion was moved to by hand.")
    minimum_effect: float | None = Field(
        default=None, description=f"Smallest gain of the mean score, 0..1. Default: {PromotionPolicy().minimum_effect}."
    )
    alpha: float | None = Field(default=None, description=f"Largest p-value, 0..1. Default: {PromotionPolicy().alpha}.")

    def policy(self) -> PromotionPolicy:
        """The policy with this run's overrides."""
        given = {"minimum_effect": self.minimum_effect, "alpha": self.alpha}
        return replace(PromotionPolicy(), **{name: value for name, value in given.items() if value is not None})

    def contradiction(self) -> str:
        """Which of the options do not go together; empty where they do."""
        if self.rollback and (self.adopt or self.approve):
            return "rollback goes with version, force and reason only, not with adopt or approve"
        if self.adopt and self.version:
            return "adopt judges the version that @champion points to: leave version out"
        if (self.force or self.reason.strip()) and not self.rollback:
            return "force and reason belong to a rollback: set rollback as well"
        return ""


@dg.asset(
    ins=ADAPTER_INS,
    group_name="promotion",
    kinds={"mlflow", "json"},
    owners=["team:evaluation"],
    code_version=fingerprint(PromotionPolicy()),
    op_tags=LOW_PRIORITY,
)
def promotion_decision(
    context: dg.AssetExecutionContext,
    config: PromotionConfig,
    comparison: Comparison,
    benchmark_scores: pl.DataFrame,
    benchmark_items: pl.DataFrame,
    base_model: ModelRecord,
    inference: Inference,
    tracking: MlflowTracking,
    evidence: CheckResults,
    **adapters: AdapterRecord,
) -> dg.MaterializeResult:
    """Whether the best adapter becomes the champion, with each clause of the policy and what was found."""
    tracker, occasion = tracking.tracker(context), _occasion(context)
    if problem := config.contradiction():
        raise ServiceHistoryError(problem)
    newest = {name: record.model_version for name, record in adapters.items()}
    version = _asked_version(tracker, config, newest)
    verdicts: list[CheckResult] = []
    behind: dict[str, str] = {}
    card = ""
    if config.rollback:
        asked = Rollback(version, config.force, config.reason)
        protected = _protections(tracker, tracking.home, config.policy())
        decision = rollback_decision(tracker, occasion.who, asked, protected)
    else:
        approved_by = occasion.who if config.approve else ""
        candidate, opponent = _contenders(tracker, config, version, approved_by)
        if not version and not config.adopt:
            candidate = compared_candidate(tracker, comparison, list(adapters.values()), approved_by)
        candidate, opponent = (
            candidate and _with_taint(candidate, tracker, tracking.home),
            _with_taint(opponent, tracker, tracking.home),
        )
        spec = _spec(context, inference, content_hash(benchmark_scores))
        examiner = _examiner(context, (inference, tracking), base_model, benchmark_items, spec)
        scores = Scores(tracker, benchmark_scores, comparison, examiner)
        if candidate:
            behind = _versions_behind(context, tracker, candidate, scores)
            verdicts = evidence.verdicts(context, behind)
        decision = evaluate_promotion(candidate, opponent, scores, verdicts, config.policy())
        if candidate and candidate.version and candidate.role == "candidate":
            card = _keep_evidence(tracker, decision, occasion, (_counts(verdicts), behind), challenger=not config.adopt)
    return dg.MaterializeResult(
        value=decision,
        data_version=dg.DataVersion(outcome_version(decision)),
        metadata={
            "outcome": decision.outcome,
            "reason": metadata_line(decision.reason),
            "clauses": dg.MetadataValue.md(clause_table(decision.clauses)),
            "checks": dg.MetadataValue.json(_counts(verdicts)),
            "policy": dg.MetadataValue.json(asdict(config.policy())),
            **({"model_card": dg.MetadataValue.md(first_sections(card))} if card else {}),
            **_link(tracking, decision.candidate_version),
        },
    )


@dg.asset(group_name="promotion", kinds={"mlflow", "json"}, owners=["team:evaluation"])
def champion(
    context: dg.AssetExecutionContext, promotion_decision: Decision, tracking: MlflowTracking
) -> dg.MaterializeResult:
    """The version that serves: `@champion` of the registered model, moved where the decision says so.

    What the record says of the version that serves stays until another one serves; `last` is the newest decision.
    """
    tracker, occasion = tracking.tracker(context), _occasion(context)
    with tracking.lock("promotion"):
        before = tracking.home.record(CHAMPION, ChampionRecord)
        record = apply_decision(tracker, promotion_decision, before, occasion)
    moved = before is None or (before.version, before.moved_at) != (record.version, record.moved_at)
    if moved and record.version and record.action == "rolled back":
        try:
            _keep_evidence(tracker, promotion_decision, occasion, ({}, {}), challenger=False)
        except (LineageError, TrackingError) as error:
            context.log.warning(f"version {record.version} serves; its model card could not be written: {error}")
    if record.version and not record.clauses:  # a killed run moved the alias: the decision was kept beside the version
        made = [one for one in decisions_on(tracker, record.version) if one.run_id == record.dagster_run_id]
        record = replace(record, clauses=[clause for one in made for clause in one.decision.clauses])
    if record.flagged:
        context.log.warning(f"@champion was moved by hand to version {record.version}: {metadata_line(record.reason)}")
    return dg.MaterializeResult(
        value=record,
        data_version=dg.DataVersion(fingerprint(record.version, record.fingerprint)),
        metadata={
            **_service(record),
            "action": record.action if moved else "kept",
            "from": record.previous_version or BASE,
            "to": record.version or BASE,
            "who": record.moved_by,
            "when": record.moved_at,
            "flagged": record.flagged,
            "decision": promotion_decision.outcome,
            "judged": promotion_decision.candidate_version or "none",
            "asked_by": occasion.who,
            "reason": metadata_line(promotion_decision.reason),
            **_link(tracking, record.version),
        },
    )


def _service(record: ChampionRecord) -> dict[str, dg.MetadataValue]:
    """Who serves and by what, apart from the decision of this run."""
    texts = {
        "serves": f"version {record.version} ({record.name})" if record.version else "the base model",
        "serves_batch": record.batch or "not recorded",
        "serves_since": record.moved_at,
        "serves_by": f"{record.action} by {record.moved_by}",
        "serves_because": record.reason,
    }
    scores = {f"{s.suite} {s.split} {s.metric}": s.facts["value"] for s in attached_scores(record.scores)}
    shown: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.text(metadata_line(text)) for name, text in texts.items()
    }
    if record.clauses:
        shown["serves_clauses"] = dg.MetadataValue.md(clause_table(record.clauses))
    return {**shown, "serves_scores": dg.MetadataValue.json(scores)}


def _asked_version(tracker: MlflowTracker, config: PromotionConfig, newest: Mapping[str, str]) -> str:
    """The number of the version that the config names, "base" for a rollback to it, empty where it names none."""
    given = (config.version or "").strip()
    if not given or (config.rollback and given == BASE):
        return given
    try:
        return version_number(tracker, given, newest)
    except VersionError as error:
        raise ServiceHistoryError(str(error)) from None


def _contenders(
    tracker: MlflowTracker, config: PromotionConfig, version: str, approved_by: str
) -> tuple[PromotionCandidate | None, PromotionCandidate]:
    """The version that is judged, where one is named or adopted, and the one that it is judged against."""
    serving = serving_version(tracker)
    try:
        if config.adopt:
            candidate = promotion_candidate(tracker, serving) if serving else None
            return candidate, promotion_candidate(tracker, version_before(tracker))
        return promotion_candidate(tracker, version, approved_by) if version else None, promotion_candidate(
            tracker, serving
        )
    except KeyError as error:
        raise ServiceHistoryError(f"{error.args[0]}: synth rollback takes it out of service") from None


def _protections(
    tracker: MlflowTracker, home: SynthHome, policy: PromotionPolicy
) -> Callable[[PromotionCandidate], list[Clause]]:
    """The clauses that a rollback asks of a version."""
    from mlflow.exceptions import MlflowException

    def items(run_id: str) -> pl.DataFrame | None:
        try:
            return tracker.scored_items(run_id)
        except (MlflowException, TrackingError, OSError, ValueError):
            return None

    def asked(one: PromotionCandidate) -> list[Clause]:
        files = ""
        try:
            ensure_adapter(tracker, one.version, home.adapters() / one.fingerprint)
        except LineageError as error:
            files = str(error)
        measured = measured_guards(tracker, one.version, one.fingerprint, policy, items)
        known = Known(decisions_on(tracker, one.version), measured, files)
        return protections(_with_taint(one, tracker, home), known, policy)

    return asked


def _with_taint(one: PromotionCandidate, tracker: MlflowTracker, home: SynthHome) -> PromotionCandidate:
    """The contender with the recalled rows it was trained on."""
    return replace(one, tainted=one.tainted or taint(tracker, home, one.version)) if one.version else one


def _spec(context: dg.AssetExecutionContext, inference: Inference, scores_version: str) -> EvaluationSpec:
    """How today's scores were made, as their asset says; else as the tier would make them."""
    told = json_metadata(context.instance, "benchmark_scores", scores_version, "spec")
    return EvaluationSpec(**told) if told else inference.hardware.spec(EvaluationSpec())


def _examiner(
    context: dg.AssetExecutionContext,
    resources: tuple[Inference, MlflowTracking],
    base: ModelRecord,
    items: pl.DataFrame,
    spec: EvaluationSpec,
) -> OnDemandScorer:
    inference, tracking = resources
    sealed = {SEALED_TAG: content_hash(items.filter(split=SEALED))}
    tracker = tracking.tracker(context)

    def subject(one: PromotionCandidate) -> EvaluatedModel:
        if not one.version:
            return load_evaluated_model(inference, tracking.home, base, None)
        try:
            return _adapted(tracker, inference, tracking.home, base, one.version)
        except (LineageError, ManifestError) as error:
            raise WeightsError(
                f"version {one.version} has to be asked and cannot be: {error}. Bring its files back, or take it out "
                "of service: synth rollback"
            ) from error

    def keep(one: PromotionCandidate, found: list[Metric], scores: pl.DataFrame) -> None:
        tags = sealed if found[0].split == SEALED else {}
        scored = one.version != "" and any(
            (score.suite, score.split) == (found[0].suite, found[0].split)
            for score in attached_scores(tracker.version_tags(one.version))
        )
        versions = {found[0].model: one.version} if one.version and not scored else {}
        run_id = tracking.tracker(context, **tags).log_scores(found, scores, versions)
        if scored:  # its score tags are the evidence by which it serves or was refused: newer scores stand beside them
            tracker.tag_version(one.version, {f"{ASKED_AGAIN}{found[0].data_hash}": run_id})

    return OnDemandScorer(
        items=items,
        spec=spec,
        folder=tracking.home.shards("evaluation"),
        subject=subject,
        keep=keep,
        models_asked=lambda: runs_with(tracker, sealed),
        turn=lambda: gpu_slot(context),
        progress=context.log.info,
        budget=step_meter(context, inference.hardware.row()).budget,
    )


def _adapted(
    tracker: MlflowTracker, inference: Inference, home: SynthHome, base: ModelRecord, version: str
) -> EvaluatedModel:
    """A version as a model that can be asked; files that are gone here are fetched from the registry.

    Raises:
        LineageError: it belongs to another base, or its files are nowhere.
    """
    record = adapter_record(tracker, version)
    if record.base_revision != base.revision:
        raise LineageError(f"it was trained on {record.base} {record.base_revision}, the base is now {base.revision}")
    try:
        return load_evaluated_model(inference, home, base, record)
    except ManifestError:
        restore_adapter(tracker, version, home.root() / record.path)
        return load_evaluated_model(inference, home, base, record)


def _versions_behind(
    context: dg.AssetExecutionContext, tracker: MlflowTracker, candidate: PromotionCandidate, scores: Scores
) -> dict[str, str]:
    """Data versions of the candidate, of all that made it, and of what measured it today."""
    if not candidate.version:
        return {}
    registered = model_version(tracker, candidate.version)
    own, manifest = registered.data_version, registered.data_versions
    versions = {**adapter_versions(context.instance, candidate.name, own), **manifest, candidate.name: own}
    if scores.has(candidate):
        measured = {n: v for n, v in upstream_versions(context).items() if n in MEASURED_BY}
        versions |= {n if versions.get(n, v) == v else f"{n}@{v}": v for n, v in measured.items()}
    return versions


def _keep_evidence(
    tracker: MlflowTracker,
    decision: Decision,
    occasion: AuditEntry,
    evidence: tuple[Mapping[str, int], Mapping[str, str]],
    *,
    challenger: bool,
) -> str:
    """Keep a decision beside the version that it is about: alias, tags, decisions, model card; returns the card.

    Nothing but the alias changes where the decision says that the version serves already: its evidence is that of the
    decision by which it serves.
    """
    version, (checks, behind) = decision.candidate_version, evidence
    summary = {} if decision.outcome == "unchanged" else evidence_tags(decision, occasion, checks)
    if challenger:
        tracker.set_alias(CHALLENGER, version, summary)
    elif summary and not is_rollback(decision):
        tracker.tag_version(version, summary)
    if decision.outcome == "unchanged":
        return ""
    tags = tracker.version_tags(version)
    scores = {name: text for name, text in tags.items() if name.startswith(SCORE)}
    judged = RecordedDecision(decision, occasion.who, occasion.when, occasion.run_id, checks, scores)
    earlier = keep_decision(tracker, version, judged)[:-1]
    made_from = behind or model_version(tracker, version).data_versions
    card = model_card(adapter_record(tracker, version), tags, decision, checks, made_from, earlier)
    attach_card(tracker, version, card)
    return card


def _occasion(context: dg.AssetExecutionContext) -> AuditEntry:
    tags = context.run.tags
    who = tags.get("by") or tags.get("trigger") or person()
    return AuditEntry(metadata_line(who), datetime.now(UTC).isoformat(), context.run.run_id)


def _counts(verdicts: Sequence[CheckResult]) -> dict[str, int]:
    return dict(Counter(verdict.status for verdict in verdicts))


def _link(tracking: MlflowTracking, version: str) -> dict[str, dg.MetadataValue]:
    return {"mlflow": dg.MetadataValue.url(tracking.version_url(version))} if version else {}
