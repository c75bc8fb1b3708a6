"""Score the base model and all adapters on every item, and log the scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from synth_assets.evals.scoring import EvaluationSpec, metrics, score_model
from synth_assets.evals.services import ScoringServices
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.schemas.records import AdapterRecord, Metric
from synth_assets.schemas.serialization import fingerprint
from synth_assets.stages.evaluation.writing_tally import WritingTally
from synth_assets.storage.manifests import content_hash

SCORING_VERSION = 1  # increment when the same answers would be scored differently
SCORES_CODE_VERSION = fingerprint(SCORING_VERSION, EvaluationSpec())


@dataclass(frozen=True)
class ModelScores:
    """Scores of several models.

    Attributes:
        table: ITEM_SCORES; a failed adapter has no rows.
        measured: metrics of the table.
        versions: version of each scored adapter in the registry.
        failures: why an adapter was not trained, by name.
        tally: tokens that were generated, and the time it took.
    """

    table: pl.DataFrame
    measured: Sequence[Metric]
    versions: Mapping[str, str]
    failures: Mapping[str, str]
    tally: WritingTally

    def log(self, tracker: MlflowTracker, items: pl.DataFrame) -> str:
        """Log the scores and the answers to BENCHMARK_ITEMS in MLflow and return the run."""
        run_id = tracker.log_scores(list(self.measured), self.table, dict(self.versions))
        tracker.log_answers(run_id, self.table, items)
        return run_id


def score_models(
    adapters: Sequence[AdapterRecord], items: pl.DataFrame, spec: EvaluationSpec, services: ScoringServices
) -> ModelScores:
    """Score the base model and each trained adapter on BENCHMARK_ITEMS; stored answers are reused."""
    options: Any = {"folder": services.folder, "progress": services.progress, "budget": services.budget}
    trained = [adapter for adapter in adapters if not adapter.failure]
    models = [services.load(adapter) for adapter in (None, *trained)]
    tally = WritingTally()
    table = pl.concat(score_model(tally.watched(model), items, spec, **options) for model in models)
    engines = {model.name: model.engine for model in models}
    return ModelScores(
        table,
        metrics(table, engines=engines, data_hash=content_hash(items)),
        {adapter.name: adapter.model_version for adapter in trained},
        {adapter.name: adapter.failure for adapter in adapters if adapter.failure},
        tally,
    )
