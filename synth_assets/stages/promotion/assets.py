"""Assets of the stage promotion: the promotion decision and the champion."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial

import dagster as dg
import polars as pl
from pydantic import Field

from resources.check_results import CheckResults, adapter_versions, json_metadata, upstream_versions
from resources.deployment import person
from resources.evaluated_models import load_evaluated_model
from resources.gpu_slots import gpu_slot
from resources.inference import Inference
from resources.stage_runs import log_or_warn
from resources.step_meter import step_meter
from resources.tracking import MlflowTracking
from synth_assets.evals.scoring import EvaluationSpec
from synth_assets.evals.suite import SEALED
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import model_version, runs_with
from synth_assets.registry.retry import TrackingError
from synth_assets.reporting.escaping import first_sections, metadata_line
from synth_assets.schemas.records import BASE, AdapterRecord, ChampionRecord, Comparison, Decision, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.promotion.alias import AuditEntry, apply_decision
from synth_assets.stages.promotion.candidates import CHAMPION
from synth_assets.stages.promotion.decision import (
    PromotionContext,
    PromotionRequest,
    decide_promotion,
    store_decision,
    with_stored_clauses,
)
from synth_assets.stages.promotion.decision_run import decision_run
from synth_assets.stages.promotion.model_card import attached_scores, clause_table
from synth_assets.stages.promotion.on_demand_scoring import (
    SEALED_TAG,
    OnDemandScorer,
    load_version,
    log_new_scores,
)
from synth_assets.stages.promotion.policy import PromotionCandidate, PromotionPolicy, outcome_version
from synth_assets.stages.promotion.user_protection import stored_protections, with_taint
from synth_assets.storage.lineage import LineageError
from synth_assets.storage.manifests import content_hash
from synth_assets.training.methods import ADAPTERS

LOW_PRIORITY = {"dagster/priority": "-100"}  # runs after the other ready steps, so that checks of the run finish first
EVALUATION_ASSETS = ("comparison", "benchmark_scores", "benchmark_items", "base_model")
ADAPTER_INS = {name: dg.AssetIn(dagster_type=AdapterRecord) for name in ADAPTERS}


class PromotionConfig(dg.Config):
    """Options of one decision; by default the comparison's candidate is evaluated."""

    version: str | None = Field(
        default=None,
        description="Number, alias or adapter of the version to evaluate instead of the comparison's candidate.",
    )
    approve: bool = Field(
        default=False, description="Approve the version where a guard is inconclusive or approval is required."
    )
    rollback: bool = Field(
        default=False, description="Return to the last version that served, exists and fails no clause."
    )
    force: bool = Field(
        default=False, description="With rollback, version and reason: accept the version although a clause fails."
    )
    reason: str = Field(default="", description="Reason of a rollback.")
    adopt: bool = Field(default=False, description="Evaluate the version that @champion was moved to in MLflow.")
    minimum_effect: float | None = Field(
        default=None, description=f"Smallest gain of the mean score, 0..1. Default: {PromotionPolicy().minimum_effect}."
    )
    alpha: float | None = Field(default=None, description=f"Largest p-value, 0..1. Default: {PromotionPolicy().alpha}.")

    def policy(self) -> PromotionPolicy:
        """Return the policy with this run's overrides."""
        overrides = {"minimum_effect": self.minimum_effect, "alpha": self.alpha}
        return replace(PromotionPolicy(), **{name: value for name, value in overrides.items() if value is not None})

    def request(self) -> PromotionRequest:
        """Return the options as a plain value."""
        return PromotionRequest(
            version=self.version or "",
            approve=self.approve,
            rollback=self.rollback,
            force=self.force,
            reason=self.reason,
            adopt=self.adopt,
            policy=self.policy(),
        )


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
    """Decide whether the best adapter becomes the champion; each clause of the policy is listed with its result."""
    tracker, home, request = tracking.tracker(context), tracking.home, config.request()

    def scorer() -> OnDemandScorer:
        spec = _evaluation_spec(context, inference, content_hash(benchmark_scores))
        return _scorer(context, (inference, tracking), base_model, benchmark_items, spec)

    report = decide_promotion(
        request,
        PromotionContext(
            tracker=tracker,
            comparison=comparison,
            scores=benchmark_scores,
            adapters=adapters,
            scorer=scorer,
            protections=stored_protections(tracker, home, home.adapters(), request.policy),
            with_taint=partial(with_taint, tracker, home),
            data_versions=partial(_data_versions, context, tracker),
            checks=partial(evidence.verdicts, context),
        ),
        _audit_entry(context),
    )
    decision = report.decision
    log_or_warn(context, tracker, decision_run(decision, context.run.run_id, report.checks))
    return dg.MaterializeResult(
        value=decision,
        data_version=dg.DataVersion(outcome_version(decision)),
        metadata={
            "outcome": decision.outcome,
            "reason": metadata_line(decision.reason),
            "clauses": dg.MetadataValue.md(clause_table(decision.clauses)),
            "checks": dg.MetadataValue.json(dict(report.checks)),
            "policy": dg.MetadataValue.json(asdict(request.policy)),
            **({"model_card": dg.MetadataValue.md(first_sections(report.card))} if report.card else {}),
            **_link(tracking, decision.candidate_version),
        },
    )


@dg.asset(group_name="promotion", kinds={"mlflow", "json"}, owners=["team:evaluation"])
def champion(
    context: dg.AssetExecutionContext, promotion_decision: Decision, tracking: MlflowTracking
) -> dg.MaterializeResult:
    """Move `@champion` of the registered model as decided, and record the version that serves.

    The record of the serving version stays until another one serves; `last` is the newest decision.
    """
    tracker, audit = tracking.tracker(context), _audit_entry(context)
    with tracking.lock("promotion"):
        before = tracking.home.record(CHAMPION, ChampionRecord)
        record = apply_decision(tracker, promotion_decision, before, audit)
    moved = before is None or (before.version, before.moved_at) != (record.version, record.moved_at)
    if moved and record.version and record.action == "rolled back":
        try:
            store_decision(tracker, promotion_decision, audit, ({}, {}), challenger=False)
        except (LineageError, TrackingError) as error:
            context.log.warning(f"Version {record.version} serves, but its model card could not be written: {error}")
    record = with_stored_clauses(tracker, record)
    if record.flagged:
        reason = metadata_line(record.reason)
        context.log.warning(f"@champion was moved to version {record.version} in MLflow: {reason}")
    return dg.MaterializeResult(
        value=record,
        data_version=dg.DataVersion(fingerprint(record.version, record.fingerprint)),
        metadata={
            **_service_metadata(record),
            "action": record.action if moved else "kept",
            "from": record.previous_version or BASE,
            "to": record.version or BASE,
            "who": record.moved_by,
            "when": record.moved_at,
            "flagged": record.flagged,
            "decision": promotion_decision.outcome,
            "judged": promotion_decision.candidate_version or "none",
            "asked_by": audit.who,
            "reason": metadata_line(promotion_decision.reason),
            **_link(tracking, record.version),
        },
    )


def _service_metadata(record: ChampionRecord) -> dict[str, dg.MetadataValue]:
    """Return metadata on the serving version, independent of this run's decision."""
    texts = {
        "serves": f"version {record.version} ({record.name})" if record.version else "the base model",
        "serves_batch": record.batch or "not recorded",
        "serves_since": record.moved_at,
        "serves_by": f"{record.action} by {record.moved_by}",
        "serves_because": record.reason,
    }
    scores = {f"{s.suite} {s.split} {s.metric}": s.facts["value"] for s in attached_scores(record.scores)}
    metadata: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.text(metadata_line(text)) for name, text in texts.items()
    }
    if record.clauses:
        metadata["serves_clauses"] = dg.MetadataValue.md(clause_table(record.clauses))
    return {**metadata, "serves_scores": dg.MetadataValue.json(scores)}


def _evaluation_spec(context: dg.AssetExecutionContext, inference: Inference, scores_version: str) -> EvaluationSpec:
    """Return the spec of today's scores from their metadata, or that of the tier if there is none."""
    spec = json_metadata(context.instance, "benchmark_scores", scores_version, "spec")
    return EvaluationSpec(**spec) if spec else inference.hardware.spec(EvaluationSpec())


def _scorer(
    context: dg.AssetExecutionContext,
    resources: tuple[Inference, MlflowTracking],
    base: ModelRecord,
    items: pl.DataFrame,
    spec: EvaluationSpec,
) -> OnDemandScorer:
    inference, tracking = resources
    tracker, home = tracking.tracker(context), tracking.home
    sealed_tags = {SEALED_TAG: content_hash(items.filter(split=SEALED))}
    load = partial(load_evaluated_model, inference, home, base)
    return OnDemandScorer(
        items=items,
        spec=spec,
        folder=home.shards("evaluation"),
        load_model=lambda candidate: load_version(tracker, candidate.version, base, home.root(), load),
        record_scores=partial(log_new_scores, tracker, lambda tags: tracking.tracker(context, **tags), sealed_tags),
        count_scored_models=lambda: runs_with(tracker, sealed_tags),
        gpu_slot=lambda: gpu_slot(context),
        progress=context.log.info,
        budget=step_meter(context, inference.hardware.row()).budget,
    )


def _data_versions(
    context: dg.AssetExecutionContext, tracker: MlflowTracker, candidate: PromotionCandidate, scored: bool
) -> dict[str, str]:
    """Return data versions of the candidate, of everything upstream, and, if `scored`, of today's evaluation."""
    if not candidate.version:
        return {}
    registered = model_version(tracker, candidate.version)
    own, manifest = registered.data_version, registered.data_versions
    versions = {**adapter_versions(context.instance, candidate.name, own), **manifest, candidate.name: own}
    if scored:
        evaluation = {n: v for n, v in upstream_versions(context).items() if n in EVALUATION_ASSETS}
        versions |= {n if versions.get(n, v) == v else f"{n}@{v}": v for n, v in evaluation.items()}
    return versions


def _audit_entry(context: dg.AssetExecutionContext) -> AuditEntry:
    tags = context.run.tags
    who = tags.get("by") or tags.get("trigger") or person()
    return AuditEntry(metadata_line(who), datetime.now(UTC).isoformat(), context.run.run_id)


def _link(tracking: MlflowTracking, version: str) -> Mapping[str, dg.MetadataValue]:
    return {"mlflow": dg.MetadataValue.url(tracking.version_url(version))} if version else {}
