"""Assets of the stage adapters: one per adapter of METHODS, and the reference log-probabilities of DPO."""

from dataclasses import replace
from typing import Any

import dagster as dg
import polars as pl

from resources.check_results import upstream_versions
from resources.hardware import GPU_POOL
from resources.inference import Inference
from resources.tracking import MlflowTracking
from resources.training import trainer
from synth_assets.schemas.preference_rounds import ROUNDS, PreferenceRound
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.stages.adapters.config import TrainingConfig, config_of_method
from synth_assets.stages.adapters.metadata import adapter_metadata, reference_metadata, registration_metadata
from synth_assets.stages.adapters.registration import adapter_data_version, register_adapter, row_manifest, run_tags
from synth_assets.training.methods import METHODS, REFERENCE_CODE_VERSION, Method, reference_description
from synth_assets.training.plan import TrainingRequest

ASSET_DEFAULTS: Any = {
    "group_name": "adapters",
    "owners": ["team:training"],
    "pool": GPU_POOL,
}


def adapter_asset(method: Method, *, control: bool = False) -> dg.AssetsDefinition:
    """Return the asset of a method's adapter, or of its control."""
    name = method.control_adapter if control else method.adapter
    inputs = (
        ("rows", method.rows, pl.DataFrame),
        ("continued", method.continues, AdapterRecord),
        ("reference", method.reference, pl.DataFrame),
    )
    config_class = config_of_method(method)

    @dg.asset(
        name=name,
        ins={key: dg.AssetIn(asset, dagster_type=kind) for key, asset, kind in inputs if asset},
        kinds={"peft", "trl"},
        description=method.control_description if control else method.description,
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
        description=reference_description(round_),
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
        own = trainer(context, inference, tracking.home)
        references = own.references(pairs.collect(), policy, base_model)
        metadata = {**reference_metadata(references.table, references.failure), **own.meter.facts()}
        return tracking.home.record_result(references.table, references.data_version, metadata)

    return reference  # pyright: ignore[reportReturnType] - the overload is lost behind **


ADAPTER_ASSETS = [
    adapter_asset(method, control=name != method.adapter) for method in METHODS.values() for name in method.adapters
]
REFERENCE_ASSETS = [reference_asset(each) for each in ROUNDS]


def _train_and_register(
    context: dg.AssetExecutionContext,
    request: TrainingRequest,
    config: TrainingConfig,
    inference: Inference,
    tracking: MlflowTracking,
) -> dg.MaterializeResult:
    """Train or load the adapter, then register its complete files."""
    home, own = tracking.home, trainer(context, inference, tracking.home, config)
    tags = run_tags(request, inference.hardware.name())
    with tracking.live_training(context, request.name, tags) as live:
        record, stored = own.train(request, force=config.force, observer=live)
        if record.failure:
            live.failed(record.failure)
    record = replace(record, data_versions=upstream_versions(context))
    version = adapter_data_version(record, stored)
    if stored is None:
        context.log.error(f"{request.name} failed: {record.failure}")
        return home.record_result(record, version, {"failure": record.failure})
    tracker = tracking.tracker(context)
    record = register_adapter(
        tracker, record, stored, (tags, own.flavour(request.base)), home.card(request.name, version)
    )
    tracker.log_rows(record.mlflow_run_id, f"{request.name}_rows", request.rows)
    tracking.log_stages(context, tracker, record.data_versions)
    links = tracking.run_url(record.mlflow_run_id), tracking.version_url(record.model_version)
    metadata = {
        **adapter_metadata(record, stored),
        **registration_metadata(record, *links),
        "trained_on_rows": request.rows["row_id"].n_unique(),
        "row_manifest": home.leave_row_manifest(request.name, version, row_manifest(request.rows)),
    }
    return home.record_result(record, version, metadata)
