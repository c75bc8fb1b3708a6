"""Plan a training: resolve and validate everything that can be known before a model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import polars as pl

from synth_assets.schemas.records import AdapterRecord, ModelRecord
from synth_assets.schemas.tier import Tier
from synth_assets.storage.blocks import Progress
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.manifests import content_hash, folder_hash, read_manifest
from synth_assets.training.adapter_store import Recipe, known_rate
from synth_assets.training.budget import UNLIMITED, Budget
from synth_assets.training.checkpoints import Checkpoints
from synth_assets.training.data import by_split
from synth_assets.training.engine import TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.methods import Method, method_of
from synth_assets.training.preconditions import batch_rows, check_precision, check_steps
from synth_assets.training.specs import AdapterSpec

CHECKPOINT_EVERY_S = 60.0  # a killed training loses a minute at most; one of LoRA's checkpoints is written in under 1 s
CHECKPOINTS = "checkpoints"  # folder of SYNTH_HOME
ARITHMETIC = ("device", "dtype", "quantisation", "attention", "grouping")  # of a tier: they change the numbers


@dataclass(frozen=True)
class TrainingRequest:
    """An adapter to train.

    Args:
        name: the asset's name.
        spec: its class is the method.
        base: the model it belongs to.
        rows: SFT_ROWS, or PAIRS.
        continued: the adapter whose weights it starts from.
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
    """Where trainings run: SYNTH_HOME, its adapters and blocks, the tier, progress, and limits."""

    root: Path
    store: Path
    shards: Path
    tier: Tier
    progress: Progress
    budget: Budget = UNLIMITED
    limits: WorkBudget | None = None  # of a step that works in blocks
    checkpoint_every_s: float = CHECKPOINT_EVERY_S

    def setup(self, name: str, base: ModelRecord) -> TrainingSetup:
        """Return what every trainer of this context needs, for one adapter."""
        return TrainingSetup(name, base.name, base.context_tokens, self.tier, self.progress, budget=self.budget)


@dataclass(frozen=True)
class TrainingPlan:
    """A resolved training; the trainer only executes it.

    Args:
        method: its row.
        spec: with batch and accumulation resolved.
        rows: SFT_ROWS, or PAIRS.
        reference: REFERENCE_LOGPROBS of the pairs; empty for other methods.
        parent: verified folder of the adapter that is continued; the empty path where none is.
        recipe: everything that determines the adapter.
        setup: tier, progress, checkpoints and budget.
    """

    method: Method
    spec: AdapterSpec
    rows: pl.DataFrame
    reference: pl.DataFrame
    parent: Path
    recipe: Recipe
    setup: TrainingSetup

    def check(self) -> None:
        """Raise TrainingError for what would fail after the model is loaded: precision, no rows, too few steps."""
        check_precision(self.setup.tier)
        check_steps(by_split(self.method.trained_rows(self.rows))[0].height, self.spec, self.setup.tier)


def plan_training(request: TrainingRequest, context: TrainingContext) -> TrainingPlan:
    """Resolve a request.

    Raises:
        TrainingError: the adapter to continue failed to train.
        ManifestError: its files are not what was made.
    """
    spec = resolved(request.spec, context.tier)
    parent = parent_folder(request.continued, context.root)
    recipe = _recipe(replace(request, spec=spec), parent, context.tier)
    setup = replace(
        context.setup(request.name, request.base),
        checkpoints=checkpoints_of(recipe, context),
        known_tokens_per_s=known_rate(context.store, recipe),
    )
    return TrainingPlan(method_of(spec), spec, request.rows, request.reference, parent, recipe, setup)


def resolved(spec: AdapterSpec, tier: Tier) -> AdapterSpec:
    """Return the spec with the tier's batch and accumulation where it names none."""
    batch, accumulation = batch_rows(spec, tier)
    return replace(spec, batch_size=batch, accumulation=accumulation)


def parent_folder(adapter: AdapterRecord | None, root: Path) -> Path:
    """Return the folder of the adapter that is continued, its files verified; the empty path where none is."""
    if adapter is None:
        return Path()
    if adapter.failure:
        raise TrainingError(f"{adapter.name} failed: {adapter.failure}")
    read_manifest(root / adapter.path)
    return root / adapter.path


def checkpoints_of(recipe: Recipe, context: TrainingContext) -> Checkpoints:
    """Return where a training leaves what it resumes from; removed once its adapter exists."""
    key = recipe.fingerprint()
    return Checkpoints(context.root / CHECKPOINTS / key, key, context.checkpoint_every_s)


def arithmetic(tier: Tier) -> Mapping[str, str]:
    """Return what of a tier changes the numbers of a training."""
    return {name: getattr(tier, name) for name in ARITHMETIC}


def _recipe(request: TrainingRequest, parent: Path, tier: Tier) -> Recipe:
    method = method_of(request.spec)
    inputs = {"rows": content_hash(request.rows)}
    if request.continued is not None:
        inputs["continued"] = folder_hash(parent)
    if method.reference:
        inputs["reference"] = content_hash(request.reference)
    return Recipe(
        name=request.name,
        method=method.key,
        spec=request.spec,
        base=request.base.name,
        base_revision=request.base.revision,
        inputs=inputs,
        tier=arithmetic(tier),
        version=method.version,
    )
