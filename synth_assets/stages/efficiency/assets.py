"""Assets of the stage efficiency: LoRA variants, their latencies, and the efficiency frontier."""

from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from resources.evaluated_models import with_adapter
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.tracking import STUDY_EXPERIMENT, MlflowTracking
from resources.training import trainer
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.efficiency.config import CELLS, FrontierConfig, LatencyConfig, VariantConfig
from synth_assets.stages.efficiency.latencies import LATENCIES_CODE_VERSION, TimedVariant, latencies, log_latencies
from synth_assets.stages.efficiency.metadata import frontier_metadata, latency_metadata, variant_metadata
from synth_assets.stages.efficiency.report import FRONTIER_CODE_VERSION, publish_study, study_report
from synth_assets.stages.efficiency.variant_training import VariantServices, log_trained_variant, train_variant
from synth_assets.stages.efficiency.variants import (
    VARIANT_CODE_VERSION,
    Study,
    Variant,
    data_version_of,
    first_seeds,
    missing_support,
    study_of,
    study_specs,
    variant_named,
)

ASSET_DEFAULTS: Any = {"group_name": "efficiency", "owners": ["team:training"]}


@dg.asset(
    partitions_def=CELLS,
    kinds={"peft", "trl"},
    pool=GPU_POOL,
    code_version=VARIANT_CODE_VERSION,
    **ASSET_DEFAULTS,
)
def lora_variant(
    context: dg.AssetExecutionContext,
    config: VariantConfig,
    sft_dataset: pl.LazyFrame,
    base_model: ModelRecord,
    benchmark_items: pl.DataFrame,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Train one LoRA variant and measure losses, score, size and cost. Variants are not registered and never served."""
    study = _study(inference, base_model, sft_dataset, benchmark_items)
    variant, stored = variant_named(context.partition_key, study.basis), None
    if reason := missing_support(variant.quantisation):
        variant = replace(variant, not_run=reason)
    else:
        services = _services(context, inference.quantised(variant.quantisation), base_model, tracking)
        variant, stored = train_variant(study, variant, services, force=config.force)
    metadata = variant_metadata(variant)
    if stored is not None:
        tracker = tracking.tracker(context, STUDY_EXPERIMENT, tier=inference.hardware.name())
        variant = log_trained_variant(tracker, variant, stored)
        run_url = tracking.run_url(variant.mlflow_run_id, STUDY_EXPERIMENT)
        metadata = variant_metadata(variant, run_url, trained_before=stored.reused)
    return tracking.home.record_result(variant, data_version_of(variant), metadata)


@dg.asset(kinds={"transformers", "parquet"}, pool=GPU_POOL, code_version=LATENCIES_CODE_VERSION, **ASSET_DEFAULTS)
def variant_latencies(
    context: dg.AssetExecutionContext,
    config: LatencyConfig,
    lora_variant: dict[str, Variant],
    sft_dataset: pl.LazyFrame,
    base_model: ModelRecord,
    benchmark_items: pl.DataFrame,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Measure latency and throughput of each cell's first seed, one variant at a time."""
    study, spec = _study(inference, base_model, sft_dataset, benchmark_items), config.spec_for(inference.hardware)
    variants = first_seeds(lora_variant, study.basis)
    timed = latencies(
        [_timed(variant, base_model, inference, tracking) for variant in variants],
        study.test_prompts(spec.prompts),
        spec,
        folder=tracking.home.shards("efficiency"),
        progress=context.log.info,
        again=config.again,
    )
    tracker = tracking.tracker(context, STUDY_EXPERIMENT)
    log_latencies(tracker, [variant.mlflow_run_id for variant in variants], timed)
    return tracking.home.table_result("variant_latencies", timed, latency_metadata(timed, spec))


@dg.asset(kinds={"json"}, code_version=FRONTIER_CODE_VERSION, **ASSET_DEFAULTS)
def efficiency_frontier(
    context: dg.AssetExecutionContext,
    config: FrontierConfig,
    lora_variant: dict[str, Variant],
    variant_latencies: pl.DataFrame,
    sft_dataset: pl.LazyFrame,
    base_model: ModelRecord,
    benchmark_items: pl.DataFrame,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Compare rank, target modules and quantisation over seeds, with Pareto frontiers and findings."""
    study = _study(inference, base_model, sft_dataset, benchmark_items)
    report = study_report(lora_variant, config.variants(), study.basis, variant_latencies)
    folder, run_url = tracking.home.report(report.data_version), partial(tracking.run_url, experiment=STUDY_EXPERIMENT)
    run_id = publish_study(report, run_url, tracking.tracker(context, STUDY_EXPERIMENT), folder)
    metadata = {**frontier_metadata(report, run_url(run_id)), "report": tracking.home.page(folder / "report.html")}
    return tracking.home.record_result(report.frontier, report.data_version, metadata)


def _study(inference: Inference, base: ModelRecord, rows: pl.LazyFrame, items: pl.DataFrame) -> Study:
    hardware = inference.hardware
    return study_of(base, (rows.collect(), items), study_specs(hardware.spec), hardware.limits())


def _services(
    context: dg.AssetExecutionContext, inference: Inference, base: ModelRecord, tracking: MlflowTracking
) -> VariantServices:
    own, home = trainer(context, inference, tracking.home), tracking.home
    return VariantServices(
        context=own.context,
        load_base=partial(inference.load_base, base),
        model_with=partial(with_adapter, inference, base),
        resolve=inference.hardware.spec,
        folders=(home.shards("efficiency"), home.shards("evaluation")),
        limits=own.meter.budget,
    )


def _timed(variant: Variant, base: ModelRecord, inference: Inference, tracking: MlflowTracking) -> TimedVariant:
    folder = tracking.home.root() / variant.path
    model = with_adapter(inference.quantised(variant.quantisation), base, folder, (variant.name, variant.adapter))
    return TimedVariant(variant.name, variant.cell, model.weights, model.engine, model.generator)
