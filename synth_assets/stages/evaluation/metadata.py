"""Metadata of the materialisations of the stage evaluation."""

from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from synth_assets.evals.guards import detectable_table
from synth_assets.evals.scoring import EvaluationSpec
from synth_assets.evals.unanswerable import count_unanswerable
from synth_assets.reporting.escaping import escaped_sample
from synth_assets.reporting.figures import benchmark_comparison, markdown_image
from synth_assets.stages.evaluation.model_comparison import ComparedModels
from synth_assets.stages.evaluation.model_scores import ModelScores
from synth_assets.stages.evaluation.overlap import overlap_table
from synth_assets.stages.evaluation.profiles import profiles
from synth_assets.stages.evaluation.report_data import ReportData
from synth_assets.stages.evaluation.scoreboard import markdown_table, paired_tests_table


def score_metadata(scores: ModelScores, items: pl.DataFrame, spec: EvaluationSpec) -> dict[str, Any]:
    """Return the metadata of ITEM_SCORES: test metrics, style statistics, failures and a sample."""
    table = scores.table
    return {
        "dagster/row_count": table.height,
        **{f"{m.model}_{m.suite}_{m.metric}": m.value for m in scores.measured if m.split == "test"},
        "profiles": dg.MetadataValue.json([asdict(profile) for profile in profiles(table)]),
        "unanswerable": dg.MetadataValue.json([asdict(counted) for counted in count_unanswerable(table)]),
        "sample": dg.MetadataValue.md(_sample(table, items)),
        **({"failed": dg.MetadataValue.json(dict(scores.failures))} if scores.failures else {}),
        "spec": dg.MetadataValue.json(asdict(spec)),
    }


def run_metadata(run_id: str, run_url: str) -> dict[str, Any]:
    """Return the metadata of the MLflow run with the scores."""
    return {"mlflow_run_id": run_id, "mlflow": dg.MetadataValue.url(run_url)}


def comparison_metadata(compared: ComparedModels, data: ReportData, run_url: str) -> dict[str, Any]:
    """Return the metadata of a comparison: candidate, scores, tests, overlap, guards, samples and a figure."""
    result = compared.comparison
    return {
        "candidate": result.candidate or "none",
        "scores": dg.MetadataValue.md(markdown_table(result)),
        "paired_tests": dg.MetadataValue.md(f"```text\n{paired_tests_table(result.tests)}\n```"),
        "overlapping_items": len(compared.overlapping),
        **{f"{m.model}_{m.metric}": m.value for m in result.win_rates},
        "without_overlap": dg.MetadataValue.md(overlap_table(compared.measured, result.without_overlap)),
        **_guard_metadata(data),
        "samples": dg.MetadataValue.md(escaped_sample(result.samples)),
        "figure": dg.MetadataValue.md(markdown_image("benchmark comparison", benchmark_comparison(result.metrics))),
        "mlflow": dg.MetadataValue.url(run_url),
    }


def _guard_metadata(data: ReportData) -> dict[str, dg.MetadataValue]:
    """Return the minimum detectable effect of each suite, and the candidate's guard results."""
    if not data.comparison.candidate:
        return {}
    return {
        "detectable": dg.MetadataValue.md(detectable_table(data.detectable)),
        "guards": dg.MetadataValue.json([asdict(guard) for guard in data.guards]),
    }


def _sample(scores: pl.DataFrame, items: pl.DataFrame) -> str:
    """Return each model's answer to the first item of the test split."""
    first = scores.filter(split="test").head(1).select("item_id", "metric")
    rows = scores.join(first, on=["item_id", "metric"], maintain_order="left")
    shown = rows.join(items.select("item_id", "prompt"), on="item_id", maintain_order="left")
    return escaped_sample(shown.select("model", "prompt", "response", "score").iter_rows(named=True))
