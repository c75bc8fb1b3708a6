"""What a report of a comparison is written from, gathered once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from synth_assets.evals.guards import DetectableEffect, GuardResult, detectable_effects, null_values, regression_guards
from synth_assets.schemas.records import BASE, AdapterRecord, Comparison
from synth_assets.stages.evaluation.profiles import Profile, profiles
from synth_assets.stages.evaluation.trainings import Trace


@dataclass(frozen=True)
class ReportData:
    """What a report is written from.

    Args:
        comparison: what was measured.
        adapters: all of them, also controls and failed ones.
        deciding: suite and metric that choose the candidate.
        nulls: suite to null model to metric to value.
        detectable: the smallest visible difference of each suite, between the base and the candidate.
        guards: what the candidate must not lose.
        profiles: how each model writes.
        links: MLflow run id to where the UI shows it.
        traces: curves and sizes of the adapters that were trained.
        fates: of the rows that the filter judged, "kept" or the reason to their number; empty where nobody knows.
        kept_scores: of the rows that were kept.
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
    deciding: tuple[str, str],
    run_url: Callable[[str], str],
) -> ReportData:
    """The evidence from ITEM_SCORES and BENCHMARK_ITEMS; `run_url` is asked once for each MLflow run."""
    scores, items = tables
    runs = {m.mlflow_run_id for m in (*comparison.metrics, *comparison.win_rates)} | {a.mlflow_run_id for a in adapters}
    candidate = comparison.candidate
    return ReportData(
        comparison=comparison,
        adapters=adapters,
        deciding=deciding,
        nulls=null_values(scores, items),
        detectable=detectable_effects(scores, BASE, candidate) if candidate else [],
        guards=regression_guards(scores, candidate) if candidate else [],
        profiles=profiles(scores),
        links={run: run_url(run) for run in sorted(runs) if run},
    )
