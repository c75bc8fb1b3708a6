"""Metadata of the materialisations of the stage efficiency."""

from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from synth_assets.reporting.figures import markdown_image
from synth_assets.stages.efficiency.figures import figures
from synth_assets.stages.efficiency.latencies import LatencySpec
from synth_assets.stages.efficiency.report import StudyReport
from synth_assets.stages.efficiency.variants import Variant, identity_of

METADATA_FIGURES = ("rank_comparison", "pareto_test_loss")  # keeps an event below 100 kB; the report has all figures


def variant_metadata(variant: Variant, run_url: str = "", *, trained_before: bool = False) -> dict[str, Any]:
    """Return the metadata of a variant: its measurements, or why it has none.

    Args:
        variant: the variant.
        run_url: URL of its MLflow run; empty if it has no measurements.
        trained_before: whether its adapter was stored already.
    """
    if not run_url:
        reasons = {"not_run": variant.not_run, "failure": variant.failure}
        return {name: reason for name, reason in reasons.items() if reason} | identity_of(variant)
    return {
        **variant.numbers,
        "trained_before": trained_before,
        "mlflow_run_id": variant.mlflow_run_id,
        "mlflow": dg.MetadataValue.url(run_url),
        **identity_of(variant),
    }


def latency_metadata(timed: pl.DataFrame, spec: LatencySpec) -> dict[str, Any]:
    """Return the metadata of LATENCIES."""
    return {
        "dagster/row_count": timed.height,
        **{f"p50_s_{row['cell']}": row["p50_s"] for row in timed.iter_rows(named=True)},
        "spec": dg.MetadataValue.json(asdict(spec)),
    }


def frontier_metadata(report: StudyReport, run_url: str) -> dict[str, Any]:
    """Return the metadata of a study: its findings, two figures and the MLflow run with the report."""
    frontier = report.frontier
    drawn = figures(frontier, report.timed)
    return {
        "cells": len(frontier.cells),
        "variants": len(frontier.runs),
        "missing": dg.MetadataValue.json(dict(frontier.missing)),
        "findings": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in frontier.findings)),
        **{name: dg.MetadataValue.md(markdown_image(*drawn[name])) for name in METADATA_FIGURES if name in drawn},
        "mlflow": dg.MetadataValue.url(run_url),
    }
