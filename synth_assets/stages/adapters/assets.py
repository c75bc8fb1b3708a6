"""Assets of the stage adapters: LoRA, prompt tuning, DPO and its two controls, and the reference they share."""

from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from resources.check_results import upstream_versions
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.step_meter import step_meter
from resources.tracking import MlflowTracking
from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.preference_rounds import OFF_POLICY, ROUNDS, PreferenceRound
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.stages.adapters.training_artifacts import curves_image, logged, trained_on, write_curves
from synth_assets.storage.manifests import content_hash, folder_hash
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.budget import budget_of, tighter
from synth_assets.training.dpo import control_spec
from synth_assets.training.errors import TrainingError
from synth_assets.training.specs import DpoSpec, LoraSpec, OnPolicyDpoSpec, PromptTuningSpec, RejectionSamplingSpec
from synth_assets.training.train_or_load import (
    CHECKPOINT_EVERY_S,
    TrainingContext,
    TrainingRequest,
    reference_logprobs_of,
    train_or_load_adapter,
)
from synth_assets.training.versions import REFERENCE, code_version

CURVES = "training"  # folder of the run's artifacts
SHOWN_EVENTS = 20
ASSET_DEFAULTS: Any = {
    "group_name": "adapters",
    "owners": ["team:training"],
    "pool": GPU_POOL,
}


class TrainingConfig(dg.Config):
    """Overrides of a training for one run; what is left out comes from the tier and the spec."""

    learning_rate: float | None = None
    epochs: float | None = None
    max_steps: int | None = None  # optimiser steps in all, instead of epochs; 0: by epochs
    schedule: str | None = None
    warmup_ratio: float | None = None
    phases: list[float] | None = None
    phase_rates: list[float] | None = None
    reduce_patience: int | None = None
    reduce_factor: float | None = None
    reduce_floor: float | None = None
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    batch_tokens: int | None = None
    order: str | None = None
    difficulty: str | None = None
    validate_every: int | None = None
    stop_patience: int | None = None
    stop_threshold: float | None = None
    keep_best: bool | None = None
    scored_rows: int | None = None
    seed: int | None = None
    force: bool = False  # train again although the adapter exists
    max_minutes: float | None = Field(None, gt=0)  # of wall time; a training that would take more is refused or stopped
    max_cost: float | None = Field(None, gt=0)  # US dollars at the tier's price, likewise
    checkpoint_every_s: float = Field(CHECKPOINT_EVERY_S, ge=0)


class LoraConfig(TrainingConfig):
    """Overrides of LoraSpec."""

    rank: int | None = None
    alpha: int | None = None
    dropout: float | None = None
    target_modules: list[str] | None = None


class PromptTuningConfig(TrainingConfig):
    """Overrides of PromptTuningSpec."""

    virtual_tokens: int | None = None
    initialisation: str | None = None


class DpoConfig(TrainingConfig):
    """Overrides of DpoSpec."""

    beta: float | None = None
    loss: str | None = None
    label_smoothing: float | None = None
    dpo_weight: float | None = None
    sft_weight: float | None = None


class RejectionSamplingConfig(TrainingConfig):
    """Overrides of RejectionSamplingSpec."""


@dg.asset(kinds={"peft", "trl"}, code_version=code_version("lora"), **ASSET_DEFAULTS)
def lora_adapter(
    context: dg.AssetExecutionContext,
    config: LoraConfig,
    sft_dataset: pl.LazyFrame,
    base_model: ModelRecord,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Low-rank adapter of the base model, fine-tuned on the instructions that were kept."""
    spec = inference.hardware.spec(LoraSpec(), config)
    order = TrainingRequest("lora_adapter", spec, base_model, sft_dataset.collect())
    return _materialised(context, order, config, inference, tracking)


@dg.asset(kinds={"peft", "trl"}, code_version=code_version("prompt_tuning"), **ASSET_DEFAULTS)
def prompt_tuning_adapter(
    context: dg.AssetExecutionContext,
    config: PromptTuningConfig,
    sft_dataset: pl.LazyFrame,
    base_model: ModelRecord,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """A few trained virtual tokens before the base model's input, on the same rows as the LoRA adapter."""
    spec = inference.hardware.spec(PromptTuningSpec(), config)
    order = TrainingRequest("prompt_tuning_adapter", spec, base_model, sft_dataset.collect())
    return _materialised(context, order, config, inference, tracking)


@dg.asset(kinds={"peft", "trl"}, code_version=code_version("rejection_sampling"), **ASSET_DEFAULTS)
def rejection_sampling_adapter(
    context: dg.AssetExecutionContext,
    config: RejectionSamplingConfig,
    preference_pairs: pl.LazyFrame,
    lora_adapter: AdapterRecord,
    base_model: ModelRecord,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """The LoRA adapter, fine-tuned further on the best response to each instruction (rejection sampling)."""
    spec = inference.hardware.spec(RejectionSamplingSpec(), config)
    order = TrainingRequest("rejection_sampling_adapter", spec, base_model, preference_pairs.collect(), lora_adapter)
    return _materialised(context, order, config, inference, tracking)


def _reference(one: PreferenceRound) -> dg.AssetsDefinition:
    """The log-probabilities that both DPO adapters of a round compare with."""

    @dg.asset(
        name=one.reference,
        ins={"pairs": dg.AssetIn(one.pairs), "policy": dg.AssetIn(one.policy)},
        kinds={"transformers", "parquet"},
        description=f"Log-probabilities of both responses of each pair under the {display_name(one.policy)} adapter; "
        "every DPO run compares with them.\n\nWithout rows where that adapter failed to train.",
        code_version=code_version(REFERENCE),
        **ASSET_DEFAULTS,
    )
    def reference(
        context: dg.AssetExecutionContext,
        pairs: pl.LazyFrame,
        policy: AdapterRecord,
        base_model: ModelRecord,
        inference: Inference,
        tracking: MlflowTracking,
    ) -> dg.MaterializeResult:
        rows, meter = pairs.collect(), step_meter(context, inference.hardware.row())
        workshop = replace(_workshop(context, inference, tracking), limits=meter.budget)
        failure = ""
        try:
            table = reference_logprobs_of(rows, policy, base_model, workshop, lambda: inference.load_base(base_model))
        except TrainingError as error:
            table, failure = REFERENCE_LOGPROBS.to_frame(), str(error)
        means = table.select(pl.col("chosen_logprob", "rejected_logprob").mean()).row(0, named=True)
        return dg.MaterializeResult(
            value=table,
            data_version=dg.DataVersion(content_hash(table)),
            metadata={
                "dagster/row_count": table.height,
                **meter.facts(),
                **{f"mean_{name}": value for name, value in means.items() if value is not None},
                **({"failure": failure} if failure else {}),
            },
        )

    return reference  # pyright: ignore[reportReturnType] - the overload is lost behind **


def _dpo(one: PreferenceRound, name: str, description: str) -> dg.AssetsDefinition:
    """The adapter of a round, or its control."""
    is_control = name == one.control

    @dg.asset(
        name=name,
        ins={
            "pairs": dg.AssetIn(one.pairs),
            "policy": dg.AssetIn(one.policy),
            "reference": dg.AssetIn(one.reference),
        },
        kinds={"peft", "trl"},
        description=description,
        code_version=code_version("dpo" if one == OFF_POLICY else "on_policy_dpo"),
        **ASSET_DEFAULTS,
    )
    def trained(
        context: dg.AssetExecutionContext,
        config: DpoConfig,
        pairs: pl.LazyFrame,
        policy: AdapterRecord,
        reference: pl.DataFrame,
        base_model: ModelRecord,
        inference: Inference,
        tracking: MlflowTracking,
    ) -> dg.MaterializeResult:
        spec = inference.hardware.spec(DpoSpec() if one == OFF_POLICY else OnPolicyDpoSpec(), config)
        spec, role = (control_spec(spec), "control") if is_control else (spec, "candidate")
        order = TrainingRequest(name, spec, base_model, pairs.collect(), policy, reference, role=role)
        return _materialised(context, order, config, inference, tracking)

    return trained  # pyright: ignore[reportReturnType] - the overload is lost behind **


def assets_of_round(one: PreferenceRound) -> list[dg.AssetsDefinition]:
    """The reference, the DPO adapter and its control."""
    own = "" if one == OFF_POLICY else " Its own responses are among the pairs."
    preferring = (
        f"The {display_name(one.policy)} adapter, trained further to prefer the chosen responses (direct preference"
    )
    control = f"The control of the {display_name(one.adapter)} adapter: the same pairs and steps with DPO weight 0."
    return [
        _reference(one),
        _dpo(one, one.adapter, f"{preferring} optimisation).{own}"),
        _dpo(one, one.control, f"{control} Scored, never a candidate."),
    ]


PREFERENCE_ROUND_ASSETS = [definition for one in ROUNDS for definition in assets_of_round(one)]


def _workshop(context: dg.AssetExecutionContext, inference: Inference, tracking: MlflowTracking) -> TrainingContext:
    home = tracking.home
    return TrainingContext(
        home.root(), home.adapters(), home.shards("adapters"), inference.hardware.limits(), context.log.info
    )


def _materialised(
    context: dg.AssetExecutionContext,
    order: TrainingRequest,
    config: TrainingConfig,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Fill the order, then register it: the adapter is safe on disk before MLflow hears of it."""
    tier = inference.hardware.limits()
    workshop = replace(
        _workshop(context, inference, tracking),
        budget=tighter(
            budget_of(config.max_minutes, config.max_cost, tier.usd_per_hour),
            step_meter(context, tier).budget.tightest(),
        ),
        checkpoint_every_s=config.checkpoint_every_s,
    )
    record, stored = train_or_load_adapter(order, workshop, lambda: inference.load_base(order.base), force=config.force)
    record = replace(record, data_versions=upstream_versions(context))
    if stored is None:
        context.log.error(f"{order.name} failed: {record.failure}")
        version = dg.DataVersion(fingerprint(order.name, record.failure))
        return dg.MaterializeResult(value=record, data_version=version, metadata={"failure": record.failure})
    tracker = tracking.tracker(context, tier=inference.hardware.name())
    tags = {"method": record.method, "role": record.role}
    run_id, version = tracker.log_training(record, stored.folder, logged(stored.outcome), tags)
    record = replace(record, mlflow_run_id=run_id, model_version=version)
    data_version = folder_hash(stored.folder)
    curves = tracking.home.card(order.name, data_version)
    write_curves(record, stored.outcome, curves)
    tracker.attach(run_id, curves, CURVES)
    manifest = tracking.home.leave_row_manifest(order.name, data_version, trained_on(order.rows))
    return dg.MaterializeResult(
        value=record,
        data_version=dg.DataVersion(data_version),
        metadata={
            **_metadata(record, stored),
            **_links(record, tracking),
            "trained_on_rows": order.rows["row_id"].n_unique(),
            "row_manifest": manifest,
            "lineage": f"synth trace {version}",
        },
    )


def _metadata(record: AdapterRecord, stored: StoredAdapter) -> dict[str, Any]:
    outcome = stored.outcome
    return {
        "final_loss": record.final_loss,
        "tokens": outcome.tokens,
        "tokens_per_s": record.tokens_per_s,
        "steps": outcome.steps,
        "seconds": record.seconds,
        "cost_usd": record.cost_usd,
        "trainable_parameters": record.trainable_parameters,
        "total_parameters": record.total_parameters,
        f"peak_memory_bytes_{record.peak_memory_kind}": record.peak_memory_bytes,
        "fill_rate": outcome.fill_rate,
        "host_peak_bytes": outcome.host_peak_bytes,
        "batch": f"{outcome.batch_size} rows x {outcome.accumulation}",
        "weights_of_step": outcome.best_step or outcome.steps,
        **{f"predicted_{name}": value for name, value in outcome.predicted.items()},
        **{f"validation_{name}": value for name, value in outcome.validation.items()},
        "phases": dg.MetadataValue.json(outcome.phases),
        "events": dg.MetadataValue.json(outcome.events[-SHOWN_EVENTS:]),
        "trained_before": stored.reused,
        "spec": dg.MetadataValue.json(dict(record.spec)),
        "record": dg.MetadataValue.json({"fingerprint": record.fingerprint, "path": record.path}),
        **{name: dg.MetadataValue.md(image) for name, image in curves_image(record, outcome).items()},
    }


def _links(record: AdapterRecord, tracking: MlflowTracking) -> dict[str, Any]:
    return {
        "mlflow_run_id": record.mlflow_run_id,
        "model_version": record.model_version,
        "mlflow_run": dg.MetadataValue.url(tracking.run_url(record.mlflow_run_id)),
        "mlflow_version": dg.MetadataValue.url(tracking.version_url(record.model_version)),
    }
