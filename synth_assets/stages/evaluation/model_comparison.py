"""Compare all models: paired tests, scores without training overlap, the candidate's win rate, and the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from synth_assets.evals.comparison import compare
from synth_assets.llm.protocols import RewardModel
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.schemas.records import AdapterRecord, Comparison, Metric
from synth_assets.schemas.serialization import fingerprint, to_json
from synth_assets.stages.evaluation.model_scores import SCORING_VERSION
from synth_assets.stages.evaluation.overlap import overlapping_items, training_texts, without_overlap
from synth_assets.stages.evaluation.profiles import PreferenceSpec, preferred
from synth_assets.stages.evaluation.report import write_report
from synth_assets.stages.evaluation.report_data import ReportData, filter_outcomes, gather
from synth_assets.stages.evaluation.trainings import traces
from synth_assets.storage.manifests import content_hash

COMPARISON_CODE_VERSION = fingerprint(SCORING_VERSION, PreferenceSpec())


@dataclass(frozen=True)
class LoggedScores:
    """Metrics of an evaluation as logged in MLflow, and its run."""

    run_id: str
    measured: Sequence[Metric]


def logged_scores(tracker: MlflowTracker, scores: pl.DataFrame) -> LoggedScores | None:
    """Return what MLflow has about ITEM_SCORES; None if they were not logged."""
    run_id = tracker.scores_run(content_hash(scores))
    return None if run_id is None else LoggedScores(run_id, tracker.scored_metrics(run_id))


@dataclass(frozen=True)
class ComparedModels:
    """A comparison, the metrics it is made of, and the ids of the items that overlap with training texts."""

    comparison: Comparison
    measured: Sequence[Metric]
    overlapping: set[str]

    @property
    def data_version(self) -> str:
        """Data version of the comparison."""
        return fingerprint(to_json(self.comparison))


def compare_models(
    measured: Sequence[Metric],
    tables: tuple[pl.DataFrame, pl.DataFrame],
    adapters: Sequence[AdapterRecord],
    training: tuple[pl.LazyFrame, Sequence[pl.LazyFrame]],
    load_reward_model: Callable[[], RewardModel],
    spec: PreferenceSpec,
) -> ComparedModels:
    """Return the comparison of the base model and all adapters.

    Args:
        measured: metrics of the scores.
        tables: ITEM_SCORES and BENCHMARK_ITEMS.
        adapters: records of all adapters, in display order.
        training: SFT_ROWS and the PAIRS of each round that adapters were trained on.
        load_reward_model: called only if there are answers to compare.
        spec: settings of the win rate.
    """
    scores, items = tables
    result = compare(list(measured), scores, items, list(adapters))
    overlapping = overlapping_items(items, training_texts(*training))
    result = replace(
        result,
        without_overlap=without_overlap(measured, scores, overlapping),
        win_rates=preferred(load_reward_model, tables, measured, result.candidate, spec),
    )
    return ComparedModels(result, measured, overlapping)


@dataclass(frozen=True)
class ReportSources:
    """Data of a report that is not in the comparison.

    Attributes:
        tables: ITEM_SCORES and BENCHMARK_ITEMS.
        adapters: records of all adapters, in display order.
        root: SYNTH_HOME.
        manifests: folder of the row manifests.
        filter_version: data version of filtered_instructions; empty if unknown.
        sft_dataset: SFT_ROWS.
        run_url: returns the URL of an MLflow run.
    """

    tables: tuple[pl.DataFrame, pl.DataFrame]
    adapters: Sequence[AdapterRecord]
    root: Path
    manifests: Path
    filter_version: str
    sft_dataset: pl.LazyFrame
    run_url: Callable[[str], str]


def publish_report(
    compared: ComparedModels, sources: ReportSources, tracker: MlflowTracker, run_id: str, folder: Path
) -> ReportData:
    """Write the report of a comparison into a folder, attach it to the MLflow run, and return its data."""
    outcomes = filter_outcomes(sources.manifests, sources.filter_version, sources.sft_dataset)
    trained = traces(sources.adapters, sources.root)
    data = gather(compared.comparison, sources.adapters, sources.tables, sources.run_url, trained, outcomes)
    write_report(data, folder)
    tracker.attach(run_id, folder, "report")
    return data
