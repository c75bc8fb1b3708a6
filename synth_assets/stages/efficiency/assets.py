"""Assets of the stage efficiency: the variants one by one, their latencies in a pass of its own, and what follows."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

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
from synth_assets.stages.efficiency.latencies import PERCENTILES, LatencySpec, Timed, latencies
from synth_assets.stages.efficiency.report import write_study
from synth_assets.stages.efficiency.variants import (
    TESTING,
    Study,
    StudySpec,
    Variant,
    losses,
    measured_variant,
    missing_support,
    settings_of,
    study_of,
    variant_of,
    version_of,
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
"""One key per variant; those of the default grid come first."""

ASSET_DEFAULTS: Any = {"group_name": "efficiency", "owners": ["team:training"]}
SHOWN_FIGURES = ("rank_comparison", "pareto_test_loss")  # an event stays under 100 kB; the report has them all


class VariantConfig(dg.Config):
    """Settings of one run of a variant; what all variants share is in the tier's row."""

    force: bool = Field(False, description="Train again although the adapter exists.")


class LatencyConfig(config_of(LatencySpec)):
    """Overrides of LatencySpec for one run."""

    again: str = Field("", description="Any new text: measure latencies again that are stored for these weights.")


class FrontierConfig(dg.Config):
    """Which variants the study is of; what of them is missing is named."""

    full: bool = Field(False, description="Every combination instead of one-factor sweeps.")
    seeds: int = Field(DEFAULT_SEEDS, description="Trainings of each cell, with seeds 1, 2, ...")
    ranks: list[int] = Field(default_factory=list, description="Only cells of these ranks; empty: all.")


class NotRunError(RuntimeError):
    """This machine cannot load the base as a cell wants it."""


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
    """One LoRA variant: trained, then its losses, score, size and cost. Not registered: it is studied, never served."""
    study = _study(inference, base_model, sft_dataset, benchmark_items)
    cell, seed = VARIANTS[context.partition_key]
    variant, stored = variant_of(cell, seed, study.basis), None
    if reason := missing_support(cell.quantisation):
        variant = replace(variant, not_run=reason)
    else:
        try:
            own = inference.quantised(cell.quantisation)
            limits = step_meter(context, inference.hardware.row()).budget
            variant, stored = _measure(study, variant, own, (tracking.home, context.log.info, limits), config.force)
        except NotRunError as error:
            variant = replace(variant, not_run=str(error))
    metadata: dict[str, Any] = {"not_run": variant.not_run, "failure": variant.failure}
    if stored is not None:
        tracker = tracking.tracker(context, STUDY_EXPERIMENT, tier=inference.hardware.name())
        identity = {**settings_of(variant), "data_version": version_of(variant)}
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
        data_version=dg.DataVersion(version_of(variant)),
        metadata={**{name: value for name, value in metadata.items() if value != ""}, **settings_of(variant)},
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
    """The time of one answer and tokens a second of each cell's first seed, one after the other, nothing beside it."""
    study = _study(inference, base_model, sft_dataset, benchmark_items)
    spec = inference.hardware.spec(LatencySpec(), config)
    chosen = _first_seeds(lora_variant, study.basis)
    prompts = study.rows.filter(split=TESTING).sort("row_id")["instruction"].head(spec.prompts).to_list()
    timed = latencies(
        [_timed(variant, base_model, inference, tracking) for variant in chosen],
        prompts,
        spec,
        folder=tracking.home.shards("efficiency"),
        progress=context.log.info,
        again=config.again,
    )
    tracker = tracking.tracker(context, STUDY_EXPERIMENT)
    for variant, row in zip(chosen, timed.iter_rows(named=True), strict=True):
        numbers = {f"answer_{name}": row[name] for name in PERCENTILES}
        add_numbers(tracker, variant.mlflow_run_id, numbers | {"answer_tokens_per_s": row["tokens_per_s"]})
    return dg.MaterializeResult(
        value=timed,
        data_version=dg.DataVersion(content_hash(timed)),
        metadata={
            "dagster/row_count": timed.height,
            **{f"p50_s_{row['cell']}": row["p50_s"] for row in timed.iter_rows(named=True)},
            "spec": dg.MetadataValue.json(asdict(spec)),
        },
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
    """Rank, target modules and quantisation compared over seeds, the Pareto frontiers, and what follows."""
    study = _study(inference, base_model, sft_dataset, benchmark_items)
    wanted = wanted_variants(full=config.full, seeds=config.seeds, ranks=config.ranks)
    found = compare(lora_variant, wanted, study.basis)
    timed = variant_latencies.filter(pl.col("cell").is_in(found.cells))
    found = replace(found, findings=findings(found, timed))
    data_version = fingerprint(to_json(found), content_hash(timed))
    folder = tracking.home.report(data_version)
    links = {run: tracking.run_url(run, STUDY_EXPERIMENT) for run in found.runs.values()}
    write_study(found, lora_variant, timed, links, folder)
    tracker = tracking.tracker(context, STUDY_EXPERIMENT)
    run_id = log_dataset(tracker, "efficiency_frontier", data_version, {"cells": float(len(found.cells))}, folder)
    return dg.MaterializeResult(
        value=found,
        data_version=dg.DataVersion(data_version),
        metadata={
            "cells": len(found.cells),
            "variants": len(found.runs),
            "missing": dg.MetadataValue.json(dict(found.missing)),
            "findings": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in found.findings)),
            **_shown(found, timed),
            "report": tracking.home.relative(folder / "report.html"),
            "mlflow": dg.MetadataValue.url(tracking.run_url(run_id, STUDY_EXPERIMENT)),
        },
    )


def _study(inference: Inference, base: ModelRecord, rows: pl.LazyFrame, items: pl.DataFrame) -> Study:
    hardware = inference.hardware
    specs = hardware.spec(StudySpec()), hardware.spec(LoraSpec())
    return study_of(base, (rows.collect(), items), specs, hardware.limits())


def _measure(
    study: Study, variant: Variant, inference: Inference, place: tuple[SynthHome, Progress, WorkBudget], force: bool
) -> tuple[Variant, StoredAdapter | None]:
    """Train the variant unless its adapter exists, then measure what was not measured before."""
    cell, seed = VARIANTS[variant.name]
    home, progress, limits = place
    tier, base = inference.hardware.limits(), study.base
    budget = tighter(UNLIMITED, limits.tightest())
    workshop = TrainingContext(home.root(), home.adapters(), home.shards("adapters"), tier, progress, budget)
    seen = study.rows.filter(pl.col("split") != TESTING)
    order = TrainingRequest("lora_variant", study.training_of(cell, seed), base, seen)
    record, stored = train_or_load_adapter(order, workshop, _loader(inference, base), force=force)
    if stored is None:
        return replace(variant, failure=record.failure), None
    subject = with_adapter(inference, base, stored.folder, (variant.name, record.fingerprint))
    held_out = losses(
        (subject.pair, subject.weights),
        study.rows,
        base.context_tokens,
        batch_rows(order.spec, tier)[0],
        folder=home.shards("efficiency"),
        progress=progress,
    )
    spec = replace(inference.hardware.spec(EvaluationSpec()), validation_items=study.spec.items)
    where: Any = {"folder": home.shards("evaluation"), "progress": progress, "budget": limits}
    scores = score_model(subject, study.items, spec, **where)
    if scores["score"].drop_nulls().is_empty():
        return replace(variant, failure="the base can take none of the validation items"), None
    variant = replace(variant, rows=dict(study.rows["split"].value_counts(sort=True).iter_rows()))
    return measured_variant(variant, record, stored.folder, held_out, _score(scores)), stored


def _loader(inference: Inference, base: ModelRecord) -> Callable[[], LoadedBase]:
    def load() -> LoadedBase:
        try:
            return inference.load_base(base)
        except (ImportError, RuntimeError) as error:  # bitsandbytes without a kernel for this device, or no memory
            quantisation = inference.hardware.limits().quantisation
            raise NotRunError(f"the base cannot be loaded here, quantisation {quantisation}: {error}") from error

    return load


def _score(scores: pl.DataFrame) -> tuple[str, str, float, int]:
    """Suite, its deciding metric, the mean over the items it applies to, and how many those are."""
    suite, metric = primary(scores)
    values = scores.filter(metric=metric)["score"].drop_nulls()
    return suite, metric, float(values.sum()) / len(values), len(values)


def _first_seeds(variants: Mapping[str, Variant], basis: str) -> list[Variant]:
    """One measured variant of each cell, in the order of the grid."""
    chosen: dict[Cell, Variant] = {}
    for name, (cell, _) in VARIANTS.items():
        variant = variants.get(name)
        if variant and variant.measured and variant.basis == basis:
            chosen.setdefault(cell, variant)
    return list(chosen.values())


def _timed(variant: Variant, base: ModelRecord, inference: Inference, tracking: MlflowTracking) -> Timed:
    folder = tracking.home.root() / variant.path
    subject = with_adapter(inference.quantised(variant.quantisation), base, folder, (variant.name, variant.adapter))
    return Timed(variant.name, variant.cell, subject.weights, subject.engine, subject.generator)


def _shown(found: Frontier, timed: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    drawn = figures(found, timed)
    return {name: dg.MetadataValue.md(markdown_image(*drawn[name])) for name in SHOWN_FIGURES if name in drawn}
