"""Train a variant of a study and measure its losses and its score."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.evals.comparison import primary
from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec, score_model
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.study_runs import log_variant
from synth_assets.stages.efficiency.grid import VARIANTS
from synth_assets.stages.efficiency.variants import (
    TEST,
    Study,
    Variant,
    data_version_of,
    held_out_losses,
    identity_of,
    measured_variant,
)
from synth_assets.storage.budgets import WorkBudget
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.engine import LoadedBase
from synth_assets.training.plan import TrainingContext, TrainingRequest
from synth_assets.training.preconditions import batch_rows
from synth_assets.training.train_or_load import train_or_load_adapter


class NotRunError(RuntimeError):
    """This machine cannot load the base with a cell's quantisation."""


@dataclass(frozen=True)
class VariantServices:
    """Models and folders for the training of a variant, with the variant's quantisation.

    Attributes:
        context: environment of the training.
        load_base: loads the base model.
        model_with: returns the base with the adapter in a folder; the pair is its name and its fingerprint.
        resolve: applies the settings of the model and the tier to a spec.
        folders: folders of stored losses and of stored answers.
        limits: limits of the step.
    """

    context: TrainingContext
    load_base: Callable[[], LoadedBase]
    model_with: Callable[[Path, tuple[str, str]], EvaluatedModel]
    resolve: Callable[[EvaluationSpec], EvaluationSpec]
    folders: tuple[Path, Path]
    limits: WorkBudget


def train_variant(
    study: Study, variant: Variant, services: VariantServices, *, force: bool
) -> tuple[Variant, StoredAdapter | None]:
    """Train the variant unless its adapter is stored, then compute missing measurements.

    The variant has `not_run` or `failure`, and there is no adapter, if it cannot be trained or measured.
    """
    cell, seed = VARIANTS[variant.name]
    rows = study.rows.filter(pl.col("split") != TEST)
    request = TrainingRequest("lora_variant", study.training_of(cell, seed), study.base, rows)
    try:
        record, stored = train_or_load_adapter(request, services.context, _loader(services), force=force)
    except NotRunError as error:
        return replace(variant, not_run=str(error)), None
    if stored is None:
        return replace(variant, failure=record.failure), None
    model = services.model_with(stored.folder, (variant.name, record.fingerprint))
    scores = _scores(study, model, services)
    if scores["score"].drop_nulls().is_empty():
        return replace(variant, failure="the base cannot answer any validation item"), None
    losses = held_out_losses(
        (model.pair, model.weights),
        study.rows,
        study.base.context_tokens,
        batch_rows(request.spec, services.context.tier)[0],
        folder=services.folders[0],
        progress=services.context.progress,
    )
    variant = replace(variant, rows=dict(study.rows["split"].value_counts(sort=True).iter_rows()))
    return measured_variant(variant, record, stored.folder, losses, _mean_score(scores)), stored


def log_trained_variant(tracker: MlflowTracker, variant: Variant, stored: StoredAdapter) -> Variant:
    """Log a measured variant with its training curve in MLflow, and return it with its run."""
    identity = {**identity_of(variant), "data_version": data_version_of(variant)}
    run_id = log_variant(tracker, identity, variant.numbers, stored.outcome.curve, variant.spec)
    return replace(variant, mlflow_run_id=run_id)


def _loader(services: VariantServices) -> Callable[[], LoadedBase]:
    def load() -> LoadedBase:
        try:
            return services.load_base()
        except (ImportError, RuntimeError) as error:  # bitsandbytes without a kernel for this device, or out of memory
            quantisation = services.context.tier.quantisation
            raise NotRunError(f"the base cannot be loaded with quantisation {quantisation}: {error}") from error

    return load


def _scores(study: Study, model: EvaluatedModel, services: VariantServices) -> pl.DataFrame:
    """Return ITEM_SCORES on the study's validation items."""
    spec = replace(services.resolve(EvaluationSpec()), validation_items=study.spec.items)
    options: Any = {
        "folder": services.folders[1],
        "progress": services.context.progress,
        "budget": services.limits,
    }
    return score_model(model, study.items, spec, **options)


def _mean_score(scores: pl.DataFrame) -> tuple[str, str, float, int]:
    """Return suite, deciding metric, mean over the items with a score, and their number."""
    suite, metric = primary(scores)
    values = scores.filter(metric=metric)["score"].drop_nulls()
    return suite, metric, float(values.sum()) / len(values), len(values)
