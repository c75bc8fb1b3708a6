"""Assets of the stage promotion: the promotion decision and the champion."""

from collections.abc import Mapping
from functools import partial

import dagster as dg
import polars as pl

from resources.audit import audit_entry
from resources.check_results import CheckResults, adapter_versions, json_metadata, upstream_versions
from resources.evaluated_models import ADAPTER_INS, scoring_services
from resources.inference import Inference
from resources.tracking import MlflowTracking
from synth_assets.schemas.records import AdapterRecord, ChampionRecord, Comparison, Decision, ModelRecord
from synth_assets.stages.promotion.champion import carry_out
from synth_assets.stages.promotion.config import PromotionConfig
from synth_assets.stages.promotion.decision import DECISION_CODE_VERSION, PromotionContext, decide_promotion
from synth_assets.stages.promotion.decision_run import decision_run
from synth_assets.stages.promotion.metadata import champion_metadata, decision_metadata
from synth_assets.stages.promotion.on_demand_scoring import OnDemandScorer, on_demand_scorer, spec_of_scores

LOW_PRIORITY = {"dagster/priority": "-100"}  # runs after the other ready steps, so that checks of the run finish first


@dg.asset(
    ins=ADAPTER_INS,
    group_name="promotion",
    kinds={"mlflow", "json"},
    owners=["team:evaluation"],
    code_version=DECISION_CODE_VERSION,
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
    stored_spec = partial(json_metadata, context.instance, "benchmark_scores", name="spec")

    def scorer() -> OnDemandScorer:
        spec = spec_of_scores(benchmark_scores, stored_spec, inference.hardware.spec)
        registry = tracker, partial(tracking.tracker, context)
        models = scoring_services(context, inference, home, base_model)
        return on_demand_scorer(registry, base_model, benchmark_items, spec, home.root(), models)

    services = PromotionContext(
        tracker=tracker,
        comparison=comparison,
        scores=benchmark_scores,
        adapters=adapters,
        scorer=scorer,
        folders=home,
        adapter_versions=partial(adapter_versions, context.instance),
        upstream_versions=partial(upstream_versions, context),
        checks=partial(evidence.verdicts, context),
    )
    report = decide_promotion(request, services, audit_entry(context))
    tracking.log_stage(context, tracker, decision_run(report.decision, context.run.run_id, report.checks))
    metadata = {
        **decision_metadata(report, request.policy),
        **_link(tracking, report.decision.candidate_version),
    }
    return home.record_result(report.decision, report.data_version, metadata)


@dg.asset(group_name="promotion", kinds={"mlflow", "json"}, owners=["team:evaluation"])
def champion(
    context: dg.AssetExecutionContext, promotion_decision: Decision, tracking: MlflowTracking
) -> dg.MaterializeResult:
    """Move `@champion` of the registered model as decided, and record the version that serves.

    The record of the serving version stays until another one serves; `last` is the newest decision.
    """
    audit = audit_entry(context)
    last_record = partial(tracking.home.record, "champion", ChampionRecord)
    change = carry_out(tracking.tracker(context), promotion_decision, last_record, audit)
    for warning in change.warnings:
        context.log.warning(warning)
    metadata = {**champion_metadata(change, promotion_decision, audit), **_link(tracking, change.record.version)}
    return tracking.home.record_result(change.record, change.data_version, metadata)


def _link(tracking: MlflowTracking, version: str) -> Mapping[str, dg.MetadataValue]:
    return {"mlflow": dg.MetadataValue.url(tracking.version_url(version))} if version else {}
