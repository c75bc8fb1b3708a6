"""Data of a comparison's report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from synth_assets.evals.comparison import primary
from synth_assets.evals.guards import DetectableEffect, GuardResult, detectable_effects, null_values, regression_guards
from synth_assets.schemas.records import BASE, AdapterRecord, Comparison
from synth_assets.stages.evaluation.profiles import Profile, profiles
from synth_assets.stages.evaluation.trainings import Trace
from synth_assets.storage.lineage import manifest_path
from synth_assets.storage.stored_files import scan_table


@dataclass(frozen=True)
class ReportData:
    """Data of a report.

    Args:
        comparison: metrics, tests and samples.
        adapters: all adapter records, including controls and failed ones.
        deciding: suite and metric that select the candidate.
        nulls: value by suite, null model and metric.
        detectable: minimum detectable effect of each suite, between the base and the candidate.
        guards: guard results of the candidate against the base.
        profiles: style statistics of each model's answers.
        links: URL of each MLflow run by run id.
        traces: curves and sizes of the trained adapters.
        fates: number of filtered rows by outcome: "kept" or the reason; empty if unknown.
        kept_scores: scores of the kept rows.
    """

    comparison: Comparison
    adapters: Sequence[AdapterRecord]
    deciding: tuple[str, str]
    nulls: Mapping[str, Mapping[str, Mapping[str, float]]]
    detectable: Sequence[DetectableEffect]
    guards: Sequence[GuardResult]
    profiles: Sequence[Profile]
    links: Mapping[str, str]
    traces: Sequence[Trace] = ()
    fates: Mapping[str, int] = field(default_factory=dict)
    kept_scores: Sequence[float] = ()


def gather(
    comparison: Comparison,
    adapters: Sequence[AdapterRecord],
    tables: tuple[pl.DataFrame, pl.DataFrame],
    run_url: Callable[[str], str],
    traces: Sequence[Trace] = (),
    outcomes: tuple[Mapping[str, int], Sequence[float]] = ({}, ()),
) -> ReportData:
    """Return the report's data.

    Args:
        comparison: metrics, tests and samples.
        adapters: all adapter records.
        tables: ITEM_SCORES and BENCHMARK_ITEMS.
        run_url: returns the URL of an MLflow run; called once for each run.
        traces: curves and sizes of the trained adapters.
        outcomes: as from `filter_outcomes`.
    """
    scores, items = tables
    fates, kept_scores = outcomes
    runs = {m.mlflow_run_id for m in (*comparison.metrics, *comparison.win_rates)} | {a.mlflow_run_id for a in adapters}
    candidate = comparison.candidate
    return ReportData(
        comparison=comparison,
        adapters=adapters,
        deciding=primary(scores),
        nulls=null_values(scores, items),
        detectable=detectable_effects(scores, BASE, candidate) if candidate else [],
        guards=regression_guards(scores, candidate) if candidate else [],
        profiles=profiles(scores),
        links={run: run_url(run) for run in sorted(runs) if run},
        traces=traces,
        fates=fates,
        kept_scores=kept_scores,
    )


def filter_outcomes(manifests: Path, version: str, sft_dataset: pl.LazyFrame) -> tuple[dict[str, int], list[float]]:
    """Return the number of filtered rows by outcome, and the scores of the kept ones; empty without a manifest.

    Args:
        manifests: folder of the row manifests.
        version: data version of filtered_instructions; empty if unknown.
        sft_dataset: SFT_ROWS of the kept rows.
    """
    manifest = manifest_path(manifests, "filtered_instructions", version)
    if not version or not manifest.is_file():
        return {}, []
    fates = dict(scan_table(manifest).group_by("fate").len().collect().iter_rows())
    scores = sft_dataset.select("score").collect()["score"].to_list()
    return {**fates, "kept": len(scores)}, scores
