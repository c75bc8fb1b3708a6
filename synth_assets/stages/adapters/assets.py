"""Assets of the stage adapters: one per adapter of METHODS, and the reference log-probabilities of DPO."""

from dataclasses import replace
from functools import cache
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field, create_model

from resources.check_results import upstream_versions
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.served_model import flavour_of
from resources.spec_config import config_of
from resources.stage_runs import log_stages
from resources.step_meter import BudgetConfig, step_meter
from resources.tracking import MlflowTracking
from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.preference_rounds import ROUNDS, PreferenceRound
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.stages.adapters.training_artifacts import curves_image, logged_curve, row_manifest, write_curves
from synth_assets.storage.manifests import content_hash, folder_hash
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.budget import budget_of, tighter
from synth_assets.training.errors import TrainingError
from synth_assets.training.methods import METHODS, REFERENCE_CODE_VERSION, Method, method_of
from synth_assets.training.plan import CHECKPOINT_EVERY_S, TrainingContext, TrainingRequest
from synth_assets.training.train_or_load import reference_logprobs_of, train_or_load_adapter

CURVES = "training"  # folder of the run's artifacts
MAX_SHOWN_EVENTS = 20
ASSET_DEFAULTS: Any = {
    "group_name": "adapters",
    "owners": ["team:training"],
    "pool": GPU_POOL,
}


class TrainingConfig(BudgetConfig):
    """Settings of one training that are not part of a spec."""

    max_minutes: float | None = Field(
        None, gt=0, description="Most wall time in minutes; a longer training is refused or stopped."
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        description="Most US dollars at the tier's price; a more expensive training is refused or stopped.",
    )
    force: bool = Field(False, description="Train again although the adapter exists.")
    checkpoint_every_s: float = Field(CHECKPOINT_EVERY_S, ge=0, description="Seconds between checkpoints.")


@cache
def config_of_method(method: Method) -> type[TrainingConfig]:
    """Return the config of a method's assets: the fields of its spec, and those of every training."""
    name = f"{method.spec.__name__.removesuffix('Spec')}Config"
    return create_model(name, __base__=(config_of(method.spec), TrainingConfig))  # pyright: ignore[reportReturnType]


def adapter_asset(method: Method, *, control: bool = False) -> dg.AssetsDefinition:
    """Return the asset of a method's adapter, or of its control."""
    name = method.control_adapter if control else method.adapter
    inputs = (
        ("rows", method.rows, pl.DataFrame),
        ("continued", method.continues, AdapterRecord),
        ("reference", method.reference, pl.DataFrame),
    )
    config_class = config_of_method(method)
    description = method.description
    if control:
        description = (
            f"Control of the {display_name(method.adapter)} adapter: the same rows and steps without the method's "
            "loss. Scored, never a candidate."
        )

    @dg.asset(
        name=name,
        ins={key: dg.AssetIn(asset, dagster_type=kind) for key, asset, kind in inputs if asset},
        kinds={"peft", "trl"},
        description=description,
        code_version=method.code_version,
        **ASSET_DEFAULTS,
    )
    def trained(
        context: dg.AssetExecutionContext,
        config: config_class,  # pyright: ignore[reportInvalidTypeForm]
        base_model: ModelRecord,
        inference: Inference,
        tracking: MlflowTracking,
        **upstream: Any,  # noqa: ANN401 - rows, and what the method's row names
    ) -> dg.MaterializeResult:
        spec = inference.hardware.spec(method.spec(), config)  # pyright: ignore[reportCallIssue]
        if control and method.control:
            spec = method.control(spec)
        role = "control" if control else "candidate"
        request = TrainingRequest(name, spec, base_model, **upstream, role=role)  # pyright: ignore[reportArgumentType]
        return _train_and_register(context, request, config, inference, tracking)

    return trained  # pyright: ignore[reportReturnType] - the overload is lost behind **


def reference_asset(round_: PreferenceRound) -> dg.AssetsDefinition:
    """Return the asset of the reference log-probabilities of a round's DPO trainings."""

    @dg.asset(
        name=round_.reference,
        ins={"pairs": dg.AssetIn(round_.pairs), "policy": dg.AssetIn(round_.policy)},
        kinds={"transformers", "parquet"},
        description=f"Log-probabilities of both responses of each pair under the {display_name(round_.policy)} "
        "adapter: the reference of every DPO training.\n\nEmpty if the training of that adapter failed.",
        code_version=REFERENCE_CODE_VERSION,
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
        training = replace(_training_context(context, inference, tracking), limits=meter.budget)
        failure = ""
        try:
            table = reference_logprobs_of(rows, policy, base_model, training, lambda: inference.load_base(base_model))
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


ADAPTER_ASSETS = [
    adapter_asset(method, control=name != method.adapter) for method in METHODS.values() for name in method.adapters
]
REFERENCE_ASSETS = [reference_asset(each) for each in ROUNDS]


def _training_context(
    context: dg.AssetExecutionContext, inference: Inference, tracking: MlflowTracking
) -> TrainingContext:
    home = tracking.home
    return TrainingContext(
        home.root(), home.adapters(), home.shards("adapters"), inference.hardware.limits(), context.log.info
    )


def _train_and_register(
    context: dg.AssetExecutionContext,
    request: TrainingRequest,
    config: TrainingConfig,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Train or load the adapter, then register its complete files."""
    tier = inference.hardware.limits()
    training = replace(
        _training_context(context, inference, tracking),
        budget=tighter(
            budget_of(config.max_minutes, config.max_cost, tier.usd_per_hour),
            step_meter(context, tier).budget.tightest(),
        ),
        checkpoint_every_s=config.checkpoint_every_s,
    )
    tags = {"method": method_of(request.spec).key, "role": request.role, "tier": inference.hardware.name()}
    with tracking.live_training(context, request.name, tags) as live:
        record, stored = train_or_load_adapter(
            request, replace(training, observer=live), lambda: inference.load_base(request.base), force=config.force
        )
        if record.failure:
            live.failed(record.failure)
    record = replace(record, data_versions=upstream_versions(context))
    if stored is None:
        context.log.error(f"{request.name} failed: {record.failure}")
        version = dg.DataVersion(fingerprint(request.name, record.failure))
        return dg.MaterializeResult(value=record, data_version=version, metadata={"failure": record.failure})
    tracker = tracking.tracker(context, tier=inference.hardware.name())
    flavour = flavour_of(inference, request.base)
    run_id, version = tracker.log_training(record, stored.folder, logged_curve(stored.outcome), tags, flavour)
    log_stages(context, tracker, record.data_versions)
    tracker.log_rows(run_id, f"{request.name}_rows", request.rows)
    record = replace(record, mlflow_run_id=run_id, model_version=version)
    data_version = folder_hash(stored.folder)
    curves = tracking.home.card(request.name, data_version)
    write_curves(record, stored.outcome, curves)
    tracker.attach(run_id, curves, CURVES)
    manifest = tracking.home.leave_row_manifest(request.name, data_version, row_manifest(request.rows))
    return dg.MaterializeResult(
        value=record,
        data_version=dg.DataVersion(data_version),
        metadata={
            **_metadata(record, stored),
            **_links(record, tracking),
            "trained_on_rows": request.rows["row_id"].n_unique(),
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
        "events": dg.MetadataValue.json(outcome.events[-MAX_SHOWN_EVENTS:]),
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
