"""Score candidates on items they have no results for: new test items and sealed items."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.evals.scoring import EvaluatedModel, EvaluationSpec, metrics, score_model, sealed_scores
from synth_assets.evals.services import ScoringServices
from synth_assets.evals.suite import SEALED
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import adapter_record, restore_adapter, runs_with
from synth_assets.schemas.records import AdapterRecord, Metric, ModelRecord
from synth_assets.stages.promotion.model_card import attached_scores
from synth_assets.stages.promotion.policy import PromotionCandidate
from synth_assets.storage.blocks import Progress
from synth_assets.storage.budgets import WorkBudget
from synth_assets.storage.lineage import LineageError
from synth_assets.storage.manifests import ManifestError, content_hash

RESCORED = "asked."  # tag prefix, followed by the hash of newer items; the value is the MLflow run with their scores
SEALED_TAG = "sealed_items"  # of MLflow runs that hold scores on sealed items: the hash of those items


class WeightsError(RuntimeError):
    """A candidate's model cannot be loaded; the message gives the cause and the remedy."""


@dataclass(frozen=True)
class OnDemandScorer:
    """Score one candidate at a time; responses that exist for the same weights are reused.

    Args:
        items: BENCHMARK_ITEMS of today.
        spec: settings of today's evaluation.
        folder: folder of the stored response blocks.
        load_model: returns a candidate's model; raises WeightsError.
        record_scores: logs a candidate's metrics in the registry with the per-item scores that prove them.
        count_scored_models: returns how many models have scores on these sealed items in the registry.
        gpu_slot: context manager held while a model runs.
        progress: receives a line every few seconds.
        budget: checked before each block of responses.
    """

    items: pl.DataFrame
    spec: EvaluationSpec
    folder: Path
    load_model: Callable[[PromotionCandidate], EvaluatedModel]
    record_scores: Callable[[PromotionCandidate, list[Metric], pl.DataFrame], None]
    count_scored_models: Callable[[], int]
    gpu_slot: Callable[[], AbstractContextManager[None]]
    progress: Progress
    budget: WorkBudget | None = None

    def test_scores(self, candidate: PromotionCandidate, item_ids: pl.DataFrame) -> pl.DataFrame:
        """Return ITEM_SCORES on the test items whose `item_id` is in `item_ids`."""
        model = self.load_model(candidate)
        items = self.items.filter(split="test").join(item_ids, on="item_id", how="semi", maintain_order="left")
        all_items = replace(self.spec, test_items=0)
        with self.gpu_slot():
            scores = score_model(model, items, all_items, **self._options())
        return self._recorded(candidate, model, scores)

    def sealed_scores(self, candidate: PromotionCandidate) -> pl.DataFrame:
        """Return ITEM_SCORES on every sealed item; empty if there are no sealed items."""
        model = self.load_model(candidate)
        with self.gpu_slot():
            scores = sealed_scores(model, self.items, self.spec, **self._options())
        return self._recorded(candidate, model, scores) if scores.height else scores

    def _options(self) -> dict[str, Any]:
        return {"folder": self.folder, "progress": self.progress, "budget": self.budget}

    def _recorded(self, candidate: PromotionCandidate, model: EvaluatedModel, scores: pl.DataFrame) -> pl.DataFrame:
        measured = metrics(scores, engines={model.name: model.engine}, data_hash=content_hash(self.items))
        self.record_scores(candidate, measured, scores)
        return scores


def spec_of_scores(
    scores: pl.DataFrame,
    stored: Callable[[str], Mapping[str, Any]],
    resolve: Callable[[EvaluationSpec], EvaluationSpec],
) -> EvaluationSpec:
    """Return the settings of today's scores, or those of the tier if they are not recorded.

    Args:
        scores: ITEM_SCORES of today.
        stored: returns the recorded settings of a data version of the scores; empty if there are none.
        resolve: applies the settings of the model and the tier to a spec.
    """
    recorded = stored(content_hash(scores))
    return EvaluationSpec(**recorded) if recorded else resolve(EvaluationSpec())


def on_demand_scorer(
    registry: tuple[MlflowTracker, Callable[..., MlflowTracker]],
    base: ModelRecord,
    items: pl.DataFrame,
    spec: EvaluationSpec,
    root: Path,
    services: ScoringServices,
) -> OnDemandScorer:
    """Return the scorer of versions that are registered in MLflow.

    Args:
        registry: the model registry, and a function that returns it with additional tags for its runs.
        base: the present base model.
        items: BENCHMARK_ITEMS of today.
        spec: settings of today's evaluation.
        root: SYNTH_HOME.
        services: loads and limits the models.
    """
    tracker, tracker_with = registry
    sealed_tags = {SEALED_TAG: content_hash(items.filter(split=SEALED))}
    return OnDemandScorer(
        items=items,
        spec=spec,
        folder=services.folder,
        load_model=lambda candidate: load_version(tracker, candidate.version, base, root, services.load),
        record_scores=partial(log_new_scores, tracker, lambda tags: tracker_with(**tags), sealed_tags),
        count_scored_models=lambda: runs_with(tracker, sealed_tags),
        gpu_slot=services.gpu_slot,
        progress=services.progress,
        budget=services.budget,
    )


def load_version(
    tracker: MlflowTracker,
    version: str,
    base: ModelRecord,
    root: Path,
    load: Callable[[AdapterRecord | None], EvaluatedModel],
) -> EvaluatedModel:
    """Return the model of a version; adapter files that are missing under `root` are restored from MLflow.

    Args:
        tracker: the model registry.
        version: version number; "" for the base model.
        base: the present base model.
        root: SYNTH_HOME.
        load: returns the base model for None, else the base with that adapter; raises ManifestError.

    Raises:
        WeightsError: the version belongs to another base, or its files cannot be restored.
    """
    if not version:
        return load(None)
    try:
        record = adapter_record(tracker, version)
        if record.base_revision != base.revision:
            raise LineageError(
                f"it was trained on {record.base} {record.base_revision}, the base is now {base.revision}"
            )
        try:
            return load(record)
        except ManifestError:
            restore_adapter(tracker, version, root / record.path)
            return load(record)
    except (LineageError, ManifestError) as error:
        raise WeightsError(
            f"version {version} must be scored but cannot be loaded: {error}. Restore its files, or take it out of "
            "service: synth rollback"
        ) from error


def log_new_scores(
    tracker: MlflowTracker,
    tracker_with: Callable[[Mapping[str, str]], MlflowTracker],
    sealed_tags: Mapping[str, str],
    candidate: PromotionCandidate,
    measured: list[Metric],
    scores: pl.DataFrame,
) -> None:
    """Log new scores of a candidate in MLflow and link them to its version.

    A version that has scores of the same suite and split keeps its score tags: they are the evidence by which it was
    promoted or refused. The run with the newer scores is linked by a tag of its own.

    Args:
        tracker: the model registry.
        tracker_with: returns a tracker whose runs have additional tags.
        sealed_tags: tags of runs with scores on sealed items.
        candidate: the scored version, or the base model.
        measured: its metrics, all of one suite and split.
        scores: its ITEM_SCORES.
    """
    first = measured[0]
    tags = sealed_tags if first.split == SEALED else {}
    scored_before = candidate.version != "" and any(
        (score.suite, score.split) == (first.suite, first.split)
        for score in attached_scores(tracker.version_tags(candidate.version))
    )
    versions = {first.model: candidate.version} if candidate.version and not scored_before else {}
    run_id = tracker_with(tags).log_scores(measured, scores, versions)
    if scored_before:
        tracker.tag_version(candidate.version, {f"{RESCORED}{first.data_hash}": run_id})
