"""Assets of the stage efficiency: LoRA variants, their latencies, and the efficiency frontier."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from resources.asset_metadata import presented
from resources.evaluated_models import with_adapter
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.spec_config import config_of
from resources.step_meter import step_meter
from resources.storage import SynthHome
from resources.tracking import STUDY_EXPERIMENT, MlflowTracking
from synth_assets.evals.comparison import primary
from synth_assets.evals.scoring import EvaluationSpec, score_model
from synth_assets.registry.dataset_runs import log_dataset
from synth_assets.registry.study_runs import add_numbers, log_variant
from synth_assets.reporting.figures import markdown_image
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import fingerprint, to_json
from synth_assets.stages.efficiency.figures import figures
from synth_assets.stages.efficiency.findings import findings
from synth_assets.stages.efficiency.frontier import Frontier, compare
from synth_assets.stages.efficiency.grid import DEFAULT_SEEDS, VARIANTS, Cell, wanted_variants
from synth_assets.stages.efficiency.latencies import PERCENTILES, LatencySpec, TimedVariant, latencies
from synth_assets.stages.efficiency.report import write_study
from synth_assets.stages.efficiency.variants import (
    TEST,
    Study,
    StudySpec,
    Variant,
    data_version_of,
    held_out_losses,
    identity_of,
    measured_variant,
    missing_support,
    study_of,
    variant_of,
)
from synth_assets.storage.blocks import Progress
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.manifests import content_hash
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.budget import UNLIMITED, tighter
from synth_assets.training.engine import LoadedBase
from synth_assets.training.methods import METHODS
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.preconditions import batch_rows
from synth_assets.training.specs import LoraSpec
from synth_assets.training.train_or_load import train_or_load_adapter

CELLS = dg.StaticPartitionsDefinition(list(VARIANTS))
"""One key per variant, those of the default grid first."""

ASSET_DEFAULTS: Any = {"group_name": "efficiency", "owners": ["team:training"]}
METADATA_FIGURES = ("rank_comparison", "pareto_test_loss")  # keeps an event below 100 kB; the report has all figures


class VariantConfig(dg.Config):
    """Settings of one run of a variant; settings common to all variants are in the tier's row."""

    force: bool = Field(False, description="Train again although the adapter exists.")


class LatencyConfig(config_of(LatencySpec)):
    """Overrides of LatencySpec for one run."""

    again: str = Field("", description="A new text here repeats latency measurements that are stored already.")


class FrontierConfig(dg.Config):
    """Variants of the study; missing ones are listed in the report."""

    full: bool = Field(False, description="Every combination instead of one-factor sweeps.")
    seeds: int = Field(DEFAULT_SEEDS, description="Trainings of each cell, with seeds 1, 2, ...")
    ranks: list[int] = Field(default_factory=list, description="Only cells of these ranks; empty: all.")


class NotRunError(RuntimeError):
    """This machine cannot load the base with a cell's quantisation."""


@dg.asset(
    partitions_def=CELLS,
    kinds={"peft", "trl"},
    pool=GPU_POOL,
    code_version=fingerprint(METHODS["lora"].code_version, StudySpec()),
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
    cell, seed = VARIANTS[context.partition_key]
    variant, stored = variant_of(cell, seed, study.basis), None
    if reason := missing_support(cell.quantisation):
        variant = replace(variant, not_run=reason)
    else:
        try:
            quantised = inference.quantised(cell.quantisation)
            limits = step_meter(context, inference.hardware.row()).budget
            variant, stored = _train_and_measure(
                study, variant, quantised, (tracking.home, context.log.info, limits), config.force
            )
        except NotRunError as error:
            variant = replace(variant, not_run=str(error))
    metadata: dict[str, Any] = {"not_run": variant.not_run, "failure": variant.failure}
    if stored is not None:
        tracker = tracking.tracker(context, STUDY_EXPERIMENT, tier=inference.hardware.name())
        identity = {**identity_of(variant), "data_version": data_version_of(variant)}
        run_id = log_variant(tracker, identity, variant.numbers, stored.outcome.curve, variant.spec)
        variant = replace(variant, mlflow_run_id=run_id)
        metadata = {
            **variant.numbers,
            "trained_before": stored.reused,
            "mlflow_run_id": run_id,
            "mlflow": dg.MetadataValue.url(tracking.run_url(run_id, STUDY_EXPERIMENT)),
        }
    return dg.MaterializeResult(
        value=variant,
        data_version=dg.DataVersion(data_version_of(variant)),
        metadata=presented(
            {**{name: value for name, value in metadata.items() if value != ""}, **identity_of(variant)}
        ),
    )


@dg.asset(kinds={"transformers", "parquet"}, pool=GPU_POOL, code_version=fingerprint(LatencySpec()), **ASSET_DEFAULTS)
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
    study = _study(inference, base_model, sft_dataset, benchmark_items)
    spec = inference.hardware.spec(LatencySpec(), config)
    variants = _first_seeds(lora_variant, study.basis)
    prompts = study.rows.filter(split=TEST).sort("row_id")["instruction"].head(spec.prompts).to_list()
    timed = latencies(
        [_timed(variant, base_model, inference, tracking) for variant in variants],
        prompts,
        spec,
        folder=tracking.home.shards("efficiency"),
        progress=context.log.info,
        again=config.again,
    )
    tracker = tracking.tracker(context, STUDY_EXPERIMENT)
    for variant, row in zip(variants, timed.iter_rows(named=True), strict=True):
        numbers = {f"answer_{name}": row[name] for name in PERCENTILES}
        add_numbers(tracker, variant.mlflow_run_id, numbers | {"answer_tokens_per_s": row["tokens_per_s"]})
    return dg.MaterializeResult(
        value=timed,
        data_version=dg.DataVersion(content_hash(timed)),
        metadata=presented(
            {
                "dagster/row_count": timed.height,
                **{f"p50_s_{row['cell']}": row["p50_s"] for row in timed.iter_rows(named=True)},
                "spec": dg.MetadataValue.json(asdict(spec)),
            }
        ),
    )


@dg.asset(kinds={"json"}, code_version=fingerprint(1), **ASSET_DEFAULTS)
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
    names = wanted_variants(full=config.full, seeds=config.seeds, ranks=config.ranks)
    frontier = compare(lora_variant, names, study.basis)
    timed = variant_latencies.filter(pl.col("cell").is_in(frontier.cells))
    frontier = replace(frontier, findings=findings(frontier, timed))
    data_version = fingerprint(to_json(frontier), content_hash(timed))
    folder = tracking.home.report(data_version)
    links = {run: tracking.run_url(run, STUDY_EXPERIMENT) for run in frontier.runs.values()}
    write_study(frontier, lora_variant, timed, links, folder)
    tracker = tracking.tracker(context, STUDY_EXPERIMENT)
    run_id = log_dataset(tracker, "efficiency_frontier", data_version, {"cells": float(len(frontier.cells))}, folder)
    return dg.MaterializeResult(
        value=frontier,
        data_version=dg.DataVersion(data_version),
        metadata=presented(
            {
                "cells": len(frontier.cells),
                "variants": len(frontier.runs),
                "missing": dg.MetadataValue.json(dict(frontier.missing)),
                "findings": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in frontier.findings)),
                **_figure_metadata(frontier, timed),
                "report": tracking.home.page(folder / "report.html"),
                "mlflow": dg.MetadataValue.url(tracking.run_url(run_id, STUDY_EXPERIMENT)),
            }
        ),
    )


def _study(inference: Inference, base: ModelRecord, rows: pl.LazyFrame, items: pl.DataFrame) -> Study:
    hardware = inference.hardware
    specs = hardware.spec(StudySpec()), hardware.spec(LoraSpec())
    return study_of(base, (rows.collect(), items), specs, hardware.limits())


def _train_and_measure(
    study: Study, variant: Variant, inference: Inference, services: tuple[SynthHome, Progress, WorkBudget], force: bool
) -> tuple[Variant, StoredAdapter | None]:
    """Train the variant unless its adapter is stored, then compute missing measurements."""
    cell, seed = VARIANTS[variant.name]
    home, progress, limits = services
    tier, base = inference.hardware.limits(), study.base
    budget = tighter(UNLIMITED, limits.tightest())
    training_context = TrainingContext(home.root(), home.adapters(), home.shards("adapters"), tier, progress, budget)
    training_rows = study.rows.filter(pl.col("split") != TEST)
    request = TrainingRequest("lora_variant", study.training_of(cell, seed), base, training_rows)
    record, stored = train_or_load_adapter(request, training_context, _loader(inference, base), force=force)
    if stored is None:
        return replace(variant, failure=record.failure), None
    model = with_adapter(inference, base, stored.folder, (variant.name, record.fingerprint))
    held_out = held_out_losses(
        (model.pair, model.weights),
        study.rows,
        base.context_tokens,
        batch_rows(request.spec, tier)[0],
        folder=home.shards("efficiency"),
        progress=progress,
    )
    spec = replace(inference.hardware.spec(EvaluationSpec()), validation_items=study.spec.items)
    options: Any = {"folder": home.shards("evaluation"), "progress": progress, "budget": limits}
    scores = score_model(model, study.items, spec, **options)
    if scores["score"].drop_nulls().is_empty():
        return replace(variant, failure="the base cannot answer any validation item"), None
    variant = replace(variant, rows=dict(study.rows["split"].value_counts(sort=True).iter_rows()))
    return measured_variant(variant, record, stored.folder, held_out, _score(scores)), stored


def _loader(inference: Inference, base: ModelRecord) -> Callable[[], LoadedBase]:
    def load() -> LoadedBase:
        try:
            return inference.load_base(base)
        except (ImportError, RuntimeError) as error:  # bitsandbytes without a kernel for this device, or out of memory
            quantisation = inference.hardware.limits().quantisation
            raise NotRunError(f"the base cannot be loaded with quantisation {quantisation}: {error}") from error

    return load


def _score(scores: pl.DataFrame) -> tuple[str, str, float, int]:
    """Return suite, deciding metric, mean over the items with a score, and their number."""
    suite, metric = primary(scores)
    values = scores.filter(metric=metric)["score"].drop_nulls()
    return suite, metric, float(values.sum()) / len(values), len(values)


def _first_seeds(variants: Mapping[str, Variant], basis: str) -> list[Variant]:
    """Return one measured variant of each cell, in the order of the grid."""
    by_cell: dict[Cell, Variant] = {}
    for name, (cell, _) in VARIANTS.items():
        variant = variants.get(name)
        if variant and variant.measured and variant.basis == basis:
            by_cell.setdefault(cell, variant)
    return list(by_cell.values())


def _timed(variant: Variant, base: ModelRecord, inference: Inference, tracking: MlflowTracking) -> TimedVariant:
    folder = tracking.home.root() / variant.path
    model = with_adapter(inference.quantised(variant.quantisation), base, folder, (variant.name, variant.adapter))
    return TimedVariant(variant.name, variant.cell, model.weights, model.engine, model.generator)


def _figure_metadata(frontier: Frontier, timed: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    drawn = figures(frontier, timed)
    return {name: dg.MetadataValue.md(markdown_image(*drawn[name])) for name in METADATA_FIGURES if name in drawn}
