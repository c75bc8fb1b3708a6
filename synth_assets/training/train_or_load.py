"""Train adapters and compute reference log-probabilities, loading stored results instead where they exist."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache

import polars as pl

from synth_assets.llm.costs import cost_usd
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.storage.blocks import BLOCK_ROWS, Block, compute_blocks, read_blocks
from synth_assets.storage.budgets import BudgetError
from synth_assets.storage.manifests import content_hash, folder_hash
from synth_assets.training.adapter_store import StoredAdapter, library_versions, load_or_train
from synth_assets.training.budget import OverBudgetError
from synth_assets.training.engine import LoadedBase, Trained
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import pair_logprobs, reference_policy
from synth_assets.training.methods import REFERENCE, REFERENCE_VERSION, method_of
from synth_assets.training.plan import (
    TrainingContext,
    TrainingPlan,
    TrainingRequest,
    numeric_settings,
    parent_folder,
    plan_training,
    resolve_batch,
)


@dataclass(frozen=True)
class References:
    """REFERENCE_LOGPROBS; empty, with the reason in `failure`, if they could not be computed."""

    table: pl.DataFrame
    failure: str = ""

    @property
    def data_version(self) -> str:
        """Data version of the table."""
        return content_hash(self.table)


def train_or_load_adapter(
    request: TrainingRequest, context: TrainingContext, load: Callable[[], LoadedBase], *, force: bool = False
) -> tuple[AdapterRecord, StoredAdapter | None]:
    """Return the adapter for a request, training it if the store does not have it.

    The record has no MLflow run and no model version yet. If the training fails, the record has a `failure` and there
    is no adapter.

    Raises:
        BudgetError: the training would exceed the budget of its run.
        ManifestError: the files of the adapter that is continued do not match its manifest.
    """
    request = replace(request, spec=resolve_batch(request.spec, context.tier))
    try:
        plan = plan_training(request, context)
        if force and plan.setup.checkpoints:
            plan.setup.checkpoints.clear()
        stored = load_or_train(context.store, plan.recipe, lambda: _train(plan, load), force=force)
        if plan.setup.checkpoints:
            plan.setup.checkpoints.clear()
    except OverBudgetError as error:
        if context.budget.of_run:
            raise BudgetError(f"{request.name}: {error}. Completed work is kept; run again to continue") from error
        return _failed_record(request, str(error)), None
    except TrainingError as error:
        return _failed_record(request, str(error)), None
    if stored.reused:
        context.progress(f"{request.name}: loaded adapter {stored.fingerprint} from the store")
    return _record(request, stored, context), stored


def reference_logprobs_of(
    pairs: pl.DataFrame,
    adapter: AdapterRecord,
    base: ModelRecord,
    context: TrainingContext,
    load: Callable[[], LoadedBase],
) -> pl.DataFrame:
    """Return REFERENCE_LOGPROBS of all pairs under base and adapter, reusing completed blocks.

    Raises:
        TrainingError: the adapter failed to train, a pair is too long, or a log-probability is not finite.
        ManifestError: the adapter's files do not match its manifest.
    """
    name, tier = REFERENCE, context.tier
    folder, setup = parent_folder(adapter, context.root), context.setup(name, base)
    policy = cache(lambda: reference_policy(load(), folder, setup))
    cache_key = [
        base.revision,
        folder_hash(folder),
        numeric_settings(tier),
        tier.batch_size,
        library_versions(),
        REFERENCE_VERSION,
    ]
    blocks = [
        Block(fingerprint(name, cache_key, content_hash(block)), block.height, block)
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


def references_or_failure(
    pairs: pl.DataFrame,
    adapter: AdapterRecord,
    base: ModelRecord,
    context: TrainingContext,
    load: Callable[[], LoadedBase],
) -> References:
    """Return the references of `reference_logprobs_of`, or an empty table with the failure of a training.

    Raises:
        ManifestError: the adapter's files do not match its manifest.
    """
    try:
        return References(reference_logprobs_of(pairs, adapter, base, context, load))
    except TrainingError as error:
        return References(REFERENCE_LOGPROBS.to_frame(), str(error))


def _train(plan: TrainingPlan, load: Callable[[], LoadedBase]) -> Trained:
    plan.check()
    recipe = plan.recipe
    facts = {"base": recipe.base, "base_revision": recipe.base_revision, "method": recipe.method}
    plan.setup.observer.started(recipe.fingerprint(), {**asdict(plan.spec), **facts})
    return plan.method.train(load(), plan)


def _record(request: TrainingRequest, stored: StoredAdapter, context: TrainingContext) -> AdapterRecord:
    outcome = stored.outcome
    return replace(
        _failed_record(request, ""),
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


def _failed_record(request: TrainingRequest, reason: str) -> AdapterRecord:
    """Return the record of a failed request, without measurements."""
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
