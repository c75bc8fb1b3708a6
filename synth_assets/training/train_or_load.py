"""Return the adapter of a request: load it from the store, or train it."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache

import polars as pl

from synth_assets.llm.costs import cost_usd
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.storage.blocks import BLOCK_ROWS, Block, compute_blocks, read_blocks
from synth_assets.storage.budgets import BudgetError
from synth_assets.storage.manifests import content_hash, folder_hash
from synth_assets.training.adapter_store import StoredAdapter, library_versions, stored_or_trained
from synth_assets.training.budget import OverBudgetError
from synth_assets.training.engine import LoadedBase, Trained
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import pair_logprobs, reference_policy
from synth_assets.training.methods import REFERENCE, REFERENCE_VERSION, method_of
from synth_assets.training.plan import (
    TrainingContext,
    TrainingPlan,
    TrainingRequest,
    arithmetic,
    parent_folder,
    plan_training,
    resolved,
)


def train_or_load_adapter(
    request: TrainingRequest, context: TrainingContext, load: Callable[[], LoadedBase], *, force: bool = False
) -> tuple[AdapterRecord, StoredAdapter | None]:
    """Return the adapter for a request, training it if the store does not have it.

    The record has no run and no version yet. A training that cannot succeed gives a record with `failure` and no
    adapter.

    Raises:
        BudgetError: it would take more than its run may.
        ManifestError: the files of the adapter that is continued are not what was made.
    """
    request = replace(request, spec=resolved(request.spec, context.tier))
    try:
        plan = plan_training(request, context)
        if force and plan.setup.checkpoints:
            plan.setup.checkpoints.clear()
        stored = stored_or_trained(context.store, plan.recipe, lambda: _trained(plan, load), force=force)
        if plan.setup.checkpoints:
            plan.setup.checkpoints.clear()
    except OverBudgetError as error:
        if context.budget.of_run:
            raise BudgetError(f"{request.name}: {error}. Finished work is kept; run again to continue") from error
        return _failed(request, str(error)), None
    except TrainingError as error:
        return _failed(request, str(error)), None
    if stored.reused:
        context.progress(f"{request.name}: adapter {stored.fingerprint} was trained before and is intact")
    return _record(request, stored, context), stored


def reference_logprobs_of(
    pairs: pl.DataFrame,
    adapter: AdapterRecord,
    base: ModelRecord,
    context: TrainingContext,
    load: Callable[[], LoadedBase],
) -> pl.DataFrame:
    """Return REFERENCE_LOGPROBS of all pairs under base and adapter; finished blocks are read, not computed again.

    Raises:
        TrainingError: the adapter failed to train, a pair is too long, or a log-probability is not finite.
        ManifestError: the adapter's files are not what was made.
    """
    name, tier = REFERENCE, context.tier
    folder, setup = parent_folder(adapter, context.root), context.setup(name, base)
    policy = cache(lambda: reference_policy(load(), folder, setup))
    made_by = [
        base.revision,
        folder_hash(folder),
        arithmetic(tier),
        tier.batch_size,
        library_versions(),
        REFERENCE_VERSION,
    ]
    blocks = [
        Block(fingerprint(name, made_by, content_hash(block)), block.height, block)
        for block in pairs.iter_slices(BLOCK_ROWS)
    ]
    paths = compute_blocks(
        blocks,
        lambda block: pair_logprobs(policy(), block, setup),
        context.shards,
        what="pairs",
        progress=context.progress,
        budget=context.limits,
    )
    return read_blocks(paths, REFERENCE_LOGPROBS)


def _trained(plan: TrainingPlan, load: Callable[[], LoadedBase]) -> Trained:
    plan.check()
    return plan.method.train(load(), plan)


def _record(request: TrainingRequest, stored: StoredAdapter, context: TrainingContext) -> AdapterRecord:
    outcome = stored.outcome
    return replace(
        _failed(request, ""),
        fingerprint=stored.fingerprint,
        path=stored.folder.relative_to(context.root).as_posix(),
        manifest_sha256=stored.manifest_sha256,
        trainable_parameters=outcome.trainable_parameters,
        total_parameters=outcome.total_parameters,
        peak_memory_bytes=outcome.peak_memory_bytes,
        peak_memory_kind=outcome.peak_memory_kind,
        tokens_per_s=outcome.tokens_per_s,
        seconds=outcome.seconds,
        cost_usd=cost_usd(outcome.seconds, context.tier.usd_per_hour),
        final_loss=outcome.final_loss,
    )


def _failed(request: TrainingRequest, reason: str) -> AdapterRecord:
    """Return the record of a request of which nothing was measured."""
    return AdapterRecord(
        name=request.name,
        method=method_of(request.spec).key,
        role=request.role,
        fingerprint="",
        path="",
        manifest_sha256="",
        model_version="",
        mlflow_run_id="",
        base=request.base.name,
        base_revision=request.base.revision,
        spec=asdict(request.spec),
        data_versions={},
        trainable_parameters=0,
        total_parameters=0,
        peak_memory_bytes=0,
        peak_memory_kind="derived",
        tokens_per_s=0.0,
        seconds=0.0,
        cost_usd=0.0,
        final_loss=math.nan,
        failure=reason,
    )
