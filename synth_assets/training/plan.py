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
from synth_assets.training.adapter_store import Recipe, last_tokens_per_s
from synth_assets.training.budget import UNLIMITED, Budget
from synth_assets.training.callbacks import UNOBSERVED, TrainingObserver
from synth_assets.training.checkpoints import Checkpoints
from synth_assets.training.data import by_split
from synth_assets.training.engine import TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.methods import Method, method_of
from synth_assets.training.preconditions import batch_rows, check_precision, check_steps
from synth_assets.training.specs import AdapterSpec

CHECKPOINT_EVERY_S = 60.0  # a killed training loses at most a minute; writing a LoRA checkpoint takes under 1 s
CHECKPOINTS = "checkpoints"  # folder of SYNTH_HOME
NUMERIC_TIER_FIELDS = ("device", "dtype", "quantisation", "attention", "grouping")  # tier fields that change weights


@dataclass(frozen=True)
class TrainingRequest:
    """Request for an adapter.

    Args:
        name: name of the asset.
        spec: settings; the class selects the method.
        base: the base model.
        rows: SFT_ROWS, or PAIRS.
        continued: adapter whose weights the training starts from.
        reference: REFERENCE_LOGPROBS of the pairs, for DPO.
        role: a "control" is evaluated but never a candidate.
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
    """Environment of trainings: SYNTH_HOME (`root`), adapter store, block folder, tier, progress, limits, observer."""

    root: Path
    store: Path
    shards: Path
    tier: Tier
    progress: Progress
    budget: Budget = UNLIMITED
    limits: WorkBudget | None = None  # for steps that compute blocks
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    observer: TrainingObserver = UNOBSERVED

    def setup(self, name: str, base: ModelRecord) -> TrainingSetup:
        """Return the setup of one adapter's training."""
        return TrainingSetup(
            *(name, base.name, base.context_tokens, self.tier, self.progress),
            budget=self.budget,
            observer=self.observer,
        )


@dataclass(frozen=True)
class TrainingPlan:
    """A resolved training, ready to execute.

    Args:
        method: row of METHODS.
        spec: settings with batch and accumulation resolved.
        rows: SFT_ROWS, or PAIRS.
        reference: REFERENCE_LOGPROBS of the pairs; empty for other methods.
        parent: verified folder of the adapter that is continued; an empty path if there is none.
        recipe: training inputs that determine the adapter.
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
        """Validate precision, rows and steps before the model is loaded. Raises TrainingError."""
        check_precision(self.setup.tier)
        check_steps(by_split(self.method.trained_rows(self.rows))[0].height, self.spec, self.setup.tier)


def plan_training(request: TrainingRequest, context: TrainingContext) -> TrainingPlan:
    """Resolve a request into a plan.

    Args:
        request: with its batch resolved (`resolve_batch`).
        context: where it is trained.

    Raises:
        TrainingError: the adapter to continue failed to train.
        ManifestError: the files of the adapter to continue do not match its manifest.
    """
    parent = parent_folder(request.continued, context.root)
    recipe = _recipe(request, parent, context.tier)
    setup = replace(
        context.setup(request.name, request.base),
        checkpoints=checkpoints_for(recipe, context),
        expected_tokens_per_s=last_tokens_per_s(context.store, recipe),
    )
    method = method_of(request.spec)
    return TrainingPlan(method, request.spec, request.rows, request.reference, parent, recipe, setup)


def resolve_batch(spec: AdapterSpec, tier: Tier) -> AdapterSpec:
    """Return the spec with batch and accumulation, taking missing values from the tier."""
    batch, accumulation = batch_rows(spec, tier)
    return replace(spec, batch_size=batch, accumulation=accumulation)


def parent_folder(adapter: AdapterRecord | None, root: Path) -> Path:
    """Return the verified folder of the adapter that is continued, or an empty path if there is none."""
    if adapter is None:
        return Path()
    if adapter.failure:
        raise TrainingError(f"{adapter.name} failed to train: {adapter.failure}")
    read_manifest(root / adapter.path)
    return root / adapter.path


def checkpoints_for(recipe: Recipe, context: TrainingContext) -> Checkpoints:
    """Return the checkpoints of a training, which are removed once its adapter is stored."""
    key = recipe.fingerprint()
    return Checkpoints(context.root / CHECKPOINTS / key, key, context.checkpoint_every_s)


def numeric_settings(tier: Tier) -> Mapping[str, str]:
    """Return the tier settings that change the trained weights."""
    return {name: getattr(tier, name) for name in NUMERIC_TIER_FIELDS}


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
        tier=numeric_settings(tier),
        version=method.version,
    )
