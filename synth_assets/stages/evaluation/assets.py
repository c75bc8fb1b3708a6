"""Assets of the stage evaluation: per-item scores of every model, and the comparison of all models."""

from typing import Any

import dagster as dg
import polars as pl

from resources.check_results import upstream_versions
from resources.evaluated_models import ADAPTER_INS, ON_POLICY_PAIRS_INS, scoring_services
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.reward import RewardModels
from resources.step_meter import step_meter
from resources.tracking import MlflowTracking
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.stages.evaluation.config import ComparisonConfig, EvaluationConfig
from synth_assets.stages.evaluation.metadata import comparison_metadata, run_metadata, score_metadata
from synth_assets.stages.evaluation.model_comparison import (
    COMPARISON_CODE_VERSION,
    ReportSources,
    compare_models,
    logged_scores,
    publish_report,
)
from synth_assets.stages.evaluation.model_scores import SCORES_CODE_VERSION, score_models


@dg.asset(
    ins=ADAPTER_INS,
    group_name="evaluation",
    kinds={"transformers", "parquet"},
    pool=GPU_POOL,
    owners=["team:evaluation"],
    code_version=SCORES_CODE_VERSION,
)
def benchmark_scores(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    base_model: ModelRecord,
    benchmark_items: pl.DataFrame,
    inference: Inference,
    tracking: MlflowTracking,
    **adapters: AdapterRecord,
) -> dg.MaterializeResult:
    """Score the base model and each adapter on every item; a failed adapter has no rows."""
    meter, spec = step_meter(context, inference.hardware.row(), config), config.spec_for(inference.hardware)
    services = scoring_services(context, inference, tracking.home, base_model, meter.budget)
    scores = score_models([adapters[name] for name in ADAPTER_INS], benchmark_items, spec, services)
    run_id = scores.log(tracking.tracker(context), benchmark_items)
    metadata = {
        **score_metadata(scores, benchmark_items, spec),
        **meter.writing_facts(scores.tally.new_tokens, scores.tally.writing_s),
        **run_metadata(run_id, tracking.run_url(run_id)),
    }
    return tracking.home.table_result("benchmark_scores", scores.table, metadata)


@dg.asset(
    ins=ADAPTER_INS | ON_POLICY_PAIRS_INS,
    group_name="evaluation",
    kinds={"transformers", "json"},
    pool=GPU_POOL,
    owners=["team:evaluation"],
    code_version=COMPARISON_CODE_VERSION,
)
def comparison(
    context: dg.AssetExecutionContext,
    config: ComparisonConfig,
    benchmark_scores: pl.DataFrame,
    benchmark_items: pl.DataFrame,
    sft_dataset: pl.LazyFrame,
    preference_pairs: pl.LazyFrame,
    reward_model: ModelRecord,
    rewards: RewardModels,
    tracking: MlflowTracking,
    **upstream: Any,  # noqa: ANN401 - the adapters, and the pairs of on-policy rounds
) -> dg.MaterializeResult:
    """Compare all models with intervals, paired tests and a report; the candidate is the best on validation."""
    tracker, home = tracking.tracker(context), tracking.home
    meter, spec = step_meter(context, rewards.hardware.row()), config.spec_for(rewards.hardware)
    logged = logged_scores(tracker, benchmark_scores)
    if logged is None:
        raise dg.Failure("MLflow has no run of these scores: materialise benchmark_scores again")
    tables = benchmark_scores, benchmark_items
    adapters = [upstream[name] for name in ADAPTER_INS]
    training = sft_dataset, [preference_pairs, *(upstream[name] for name in ON_POLICY_PAIRS_INS)]
    compared = compare_models(logged.measured, tables, adapters, training, lambda: rewards.load(reward_model), spec)
    filter_version = upstream_versions(context).get("filtered_instructions", "")
    sources = ReportSources(
        tables, adapters, home.root(), home.manifests(), filter_version, sft_dataset, tracking.run_url
    )
    folder = home.report(compared.data_version)
    data = publish_report(compared, sources, tracker, logged.run_id, folder)
    metadata = {
        **comparison_metadata(compared, data, tracking.run_url(logged.run_id)),
        **meter.facts(),
        "report": home.page(folder / "report.html"),
    }
    return home.record_result(compared.comparison, compared.data_version, metadata)
