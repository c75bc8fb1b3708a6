"""What an adapter asset does: train unless the adapter exists, and say what was made or why not."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import polars as pl

from synth_assets.llm.costs import cost_usd
from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.schemas.tier import Tier
from synth_assets.storage.blocks import BLOCK_ROWS, Block, Progress, compute_blocks, read_blocks
from synth_assets.storage.budgets import BudgetError, WorkBudget
from synth_assets.storage.manifests import content_hash, folder_hash, read_manifest
from synth_assets.training.adapter_store import (
    Recipe,
    StoredAdapter,
    known_rate,
    library_versions,
    stored_or_trained,
)
from synth_assets.training.budget import UNLIMITED, Budget, OverBudgetError
from synth_assets.training.checkpoints import Checkpoints
from synth_assets.training.data import best_responses, by_split
from synth_assets.training.dpo import train_dpo
from synth_assets.training.engine import LoadedBase, Trained, TrainingPlan
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import pair_logprobs, reference_policy
from synth_assets.training.preconditions import batch_rows, check_precision, check_steps
from synth_assets.training.prompt_tuning import train_prompt
from synth_assets.training.sft import train_lora, train_on_best
from synth_assets.training.specs import AdapterSpec, DpoSpec, LoraSpec, PromptTuningSpec, RejectionSamplingSpec
from synth_assets.training.versions import REFERENCE, VERSIONS

CHECKPOINT_EVERY_S = 60.0  # a killed training loses a minute at most; one of LoRA's checkpoints is written in under 1 s
CHECKPOINTS = "checkpoints"  # folder of SYNTH_HOME
ARITHMETIC = ("device", "dtype", "quantisation", "attention", "grouping")  # of a tier: they change the numbers
METHODS: Mapping[str, Literal["lora", "prompt_tuning", "dpo", "on_policy_dpo", "rejection_sampling"]] = {
    "LoraSpec": "lora",
    "PromptTuningSpec": "prompt_tuning",
    "DpoSpec": "dpo",
    "OnPolicyDpoSpec": "on_policy_dpo",
    "RejectionSamplingSpec": "rejection_sampling",
}


@dataclass(frozen=True)
class TrainingRequest:
    """An adapter that is wanted.

    Args:
        name: the asset's name.
        spec: its class is the method.
        base: the model it belongs to.
        rows: SFT_ROWS, or PAIRS.
        continued: the LoRA adapter whose weights it starts from.
        reference: REFERENCE_LOGPROBS of the pairs, for DPO.
        role: "control" is scored and never a candidate.
    """

    name: str
    spec: AdapterSpec
    base: ModelRecord
    rows: pl.DataFrame
    continued: AdapterRecord | None = None
    reference: pl.DataFrame = field(default_factory=pl.DataFrame)
    role: Literal["candidate", "control"] = "candidate"


@dataclass(frozen=True)
class TrainingContext:
    """Where orders are filled: SYNTH_HOME, its adapters and shards, the tier, who is told, and what it may take."""

    root: Path
    store: Path
    shards: Path
    tier: Tier
    progress: Progress
    budget: Budget = UNLIMITED
    limits: WorkBudget | None = None  # of a step that works in blocks
    checkpoint_every_s: float = CHECKPOINT_EVERY_S


def train_or_load_adapter(
    order: TrainingRequest, workshop: TrainingContext, load: Callable[[], LoadedBase], *, force: bool = False
) -> tuple[AdapterRecord, StoredAdapter | None]:
    """The adapter of an order, from the store or trained now; its record has no run and no version yet.

    A training that cannot succeed gives a record with `failure` and no adapter.

    Raises:
        BudgetError: it would take more than its run may.
        ManifestError: the files of the adapter that is continued are not what was made.
    """
    batch, accumulation = batch_rows(order.spec, workshop.tier)
    order = replace(order, spec=replace(order.spec, batch_size=batch, accumulation=accumulation))
    try:
        parent = parent_folder(order.continued, workshop.root)
        recipe = _recipe(order, parent, workshop.tier)
        checkpoints = checkpoints_of(recipe, workshop)
        setting = replace(
            setting_of(order.name, order.base, workshop),
            checkpoints=checkpoints,
            known_tokens_per_s=known_rate(workshop.store, recipe),
        )
        if force:
            checkpoints.clear()
        stored = stored_or_trained(workshop.store, recipe, lambda: _trained(order, parent, load, setting), force=force)
        checkpoints.clear()
    except OverBudgetError as error:
        if workshop.budget.of_run:
            raise BudgetError(f"{order.name}: {error}. What is finished is kept; run again to go on") from error
        return _failed(order, str(error)), None
    except TrainingError as error:
        return _failed(order, str(error)), None
    if stored.reused:
        workshop.progress(f"{order.name}: adapter {stored.fingerprint} was trained before and is intact")
    return _record(order, stored, workshop), stored


def reference_logprobs_of(
    pairs: pl.DataFrame,
    adapter: AdapterRecord,
    base: ModelRecord,
    workshop: TrainingContext,
    load: Callable[[], LoadedBase],
) -> pl.DataFrame:
    """REFERENCE_LOGPROBS of all pairs under base and adapter; blocks that were computed before are read.

    Raises:
        TrainingError: the adapter failed to train, a pair is too long, or a log-probability is not finite.
        ManifestError: the adapter's files are not what was made.
    """
    name, tier = "reference_logprobs", workshop.tier
    folder, setting = parent_folder(adapter, workshop.root), setting_of(name, base, workshop)
    policy = cache(lambda: reference_policy(load(), folder, setting))
    made_by = [
        base.revision,
        folder_hash(folder),
        _arithmetic(tier),
        tier.batch_size,
        library_versions(),
        VERSIONS[REFERENCE],
    ]
    blocks = [
        Block(fingerprint(name, made_by, content_hash(block)), block.height, block)
        for block in pairs.iter_slices(BLOCK_ROWS)
    ]
    paths = compute_blocks(
        blocks,
        lambda block: pair_logprobs(policy(), block, setting),
        workshop.shards,
        what="pairs",
        progress=workshop.progress,
        budget=workshop.limits,
    )
    return read_blocks(paths, REFERENCE_LOGPROBS)


def parent_folder(adapter: AdapterRecord | None, root: Path) -> Path:
    """Where the adapter that is continued lies, its files verified; the empty path where none is."""
    if adapter is None:
        return Path()
    if adapter.failure:
        raise TrainingError(f"{adapter.name} failed: {adapter.failure}")
    read_manifest(root / adapter.path)
    return root / adapter.path


def setting_of(name: str, base: ModelRecord, workshop: TrainingContext) -> TrainingPlan:
    """What the engine is told about the place."""
    return TrainingPlan(name, base.name, base.context_tokens, workshop.tier, workshop.progress, budget=workshop.budget)


def checkpoints_of(recipe: Recipe, workshop: TrainingContext) -> Checkpoints:
    """Where a training leaves what it can be resumed from; gone once its adapter exists."""
    key = recipe.fingerprint()
    return Checkpoints(workshop.root / CHECKPOINTS / key, key, workshop.checkpoint_every_s)


def _trained(order: TrainingRequest, parent: Path, load: Callable[[], LoadedBase], setting: TrainingPlan) -> Trained:
    """The engine's training for the order's spec; what needs no model is checked before one is loaded."""
    spec, tier = order.spec, setting.tier
    rows = best_responses(order.rows) if isinstance(spec, RejectionSamplingSpec) else order.rows
    check_precision(tier)
    check_steps(by_split(rows)[0].height, spec, tier)
    loaded = load()
    if isinstance(spec, LoraSpec):
        return train_lora(loaded, order.rows, spec, setting)
    if isinstance(spec, PromptTuningSpec):
        return train_prompt(loaded, order.rows, spec, setting)
    if isinstance(spec, DpoSpec):
        return train_dpo(loaded, parent, (order.rows, order.reference), spec, setting)
    return train_on_best(loaded, parent, order.rows, spec, setting)


def _recipe(order: TrainingRequest, parent: Path, tier: Tier) -> Recipe:
    inputs = {"rows": content_hash(order.rows)}
    if order.continued is not None:
        inputs["continued"] = folder_hash(parent)
    if isinstance(order.spec, DpoSpec):
        inputs["reference"] = content_hash(order.reference)
    method = METHODS[type(order.spec).__name__]
    return Recipe(
        name=order.name,
        method=method,
        spec=order.spec,
        base=order.base.name,
        base_revision=order.base.revision,
        inputs=inputs,
        tier=_arithmetic(tier),
        version=VERSIONS[method],
    )


def _arithmetic(tier: Tier) -> dict[str, str]:
    return {name: getattr(tier, name) for name in ARITHMETIC}


def _record(order: TrainingRequest, stored: StoredAdapter, workshop: TrainingContext) -> AdapterRecord:
    outcome = stored.outcome
    return replace(
        _failed(order, ""),
        fingerprint=stored.fingerprint,
        path=stored.folder.relative_to(workshop.root).as_posix(),
        manifest_sha256=stored.manifest_sha256,
        trainable_parameters=outcome.trainable_parameters,
        total_parameters=outcome.total_parameters,
        peak_memory_bytes=outcome.peak_memory_bytes,
        peak_memory_kind=outcome.peak_memory_kind,
        tokens_per_s=outcome.tokens_per_s,
        seconds=outcome.seconds,
        cost_usd=cost_usd(outcome.seconds, workshop.tier.usd_per_hour),
        final_loss=outcome.final_loss,
    )


def _failed(order: TrainingRequest, reason: str) -> AdapterRecord:
    """The record of an order of which nothing was measured."""
    return AdapterRecord(
        name=order.name,
        method=METHODS[type(order.spec).__name__],
        role=order.role,
        fingerprint="",
        path="",
        manifest_sha256="",
        model_version="",
        mlflow_run_id="",
        base=order.base.name,
        base_revision=order.base.revision,
        spec=asdict(order.spec),
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
