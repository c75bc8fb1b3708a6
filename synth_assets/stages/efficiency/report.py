"""Report of a study: findings, figures and the numbers of every cell and variant."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from synth_assets.registry.dataset_runs import log_dataset
from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.reporting.document import Cell, Figure, Points, Section, Table, markdown, page
from synth_assets.reporting.figures import png
from synth_assets.schemas.serialization import fingerprint, to_json
from synth_assets.stages.efficiency.figures import figures
from synth_assets.stages.efficiency.findings import findings
from synth_assets.stages.efficiency.frontier import METRICS, Frontier, compare
from synth_assets.stages.efficiency.variants import Variant
from synth_assets.storage.atomic import write_bytes
from synth_assets.storage.manifests import content_hash

FRONTIER_CODE_VERSION = fingerprint(1)
TITLE = "LoRA efficiency study"
IDENTITY = ("name", "rank", "modules", "quantisation", "seed", "mlflow_run_id", "not_run", "failure")
FORMATS = {
    "trainable_parameters": ",.0f",
    "adapter_bytes": ",.0f",
    "peak_memory_bytes": ",.0f",
    "tokens_per_s": ",.0f",
    "seconds": ".1f",
}


@dataclass(frozen=True)
class StudyReport:
    """A study with its findings, all materialised variants, and the LATENCIES of its cells."""

    frontier: Frontier
    variants: Mapping[str, Variant]
    timed: pl.DataFrame

    @property
    def data_version(self) -> str:
        """Data version of the study."""
        return fingerprint(to_json(self.frontier), content_hash(self.timed))


def study_report(
    variants: Mapping[str, Variant], wanted: Sequence[str], basis: str, latencies: pl.DataFrame
) -> StudyReport:
    """Compare the variants of a study and derive its findings.

    Args:
        variants: all materialised variants.
        wanted: names of the variants of the study.
        basis: fingerprint of its data and settings.
        latencies: LATENCIES, also of other cells.
    """
    frontier = compare(variants, wanted, basis)
    timed = latencies.filter(pl.col("cell").is_in(frontier.cells))
    return StudyReport(replace(frontier, findings=findings(frontier, timed)), variants, timed)


def publish_study(report: StudyReport, run_url: Callable[[str], str], tracker: MlflowTracker, folder: Path) -> str:
    """Write the report of a study into a folder, log it in MLflow, and return the run.

    Args:
        report: the study.
        run_url: returns the URL of an MLflow run.
        tracker: tracker of the study's experiment.
        folder: folder of the report.
    """
    links = {run: run_url(run) for run in report.frontier.runs.values()}
    write_study(report.frontier, report.variants, report.timed, links, folder)
    numbers = {"cells": float(len(report.frontier.cells))}
    return log_dataset(tracker, "efficiency_frontier", report.data_version, numbers, folder)


def write_study(
    study: Frontier, variants: Mapping[str, Variant], timed: pl.DataFrame, links: Mapping[str, str], folder: Path
) -> list[str]:
    """Write report.html, report.md, study.json, cells.csv, variants.csv, latencies.csv and the figures.

    Args:
        study: with its findings.
        variants: all materialised variants.
        timed: LATENCIES.
        links: URL of each MLflow run by run id.
        folder: folder of the report.

    Returns:
        The names of the files.
    """
    drawn = [Figure(name, caption, png(figure)) for name, (caption, figure) in figures(study, timed).items()]
    parts = sections(study, timed, links, drawn)
    files = {
        **{f"{figure.name}.png": figure.png for figure in drawn},
        "variants.csv": _csv(variant_table(study, variants)),
        "cells.csv": _csv(cell_table(study)),
        "latencies.csv": _csv(timed),
        "study.json": to_json(study).encode(),
        "report.md": markdown(TITLE, parts).encode(),
        "report.html": page(TITLE, parts).encode(),
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
    return list(files)


def variant_table(study: Frontier, variants: Mapping[str, Variant]) -> pl.DataFrame:
    """Return one row for each requested variant: its factors and numbers, or why it has none."""
    rows = []
    for name in study.wanted:
        variant = variants.get(name)
        left_out = study.missing.get(name, "")
        numbers = dict(variant.numbers) if variant and not left_out else {}
        identity = {field: getattr(variant, field) for field in IDENTITY} if variant else {"name": name}
        rows.append({**identity, "left_out": left_out, **{metric: numbers.get(metric) for metric in METRICS}})
    return pl.DataFrame(rows, infer_schema_length=None)


def cell_table(study: Frontier) -> pl.DataFrame:
    """Return one row for each cell and metric: mean, interval, number of seeds."""
    schema = {"cell": pl.String, "metric": pl.String, "n": pl.Int64, "mean": pl.Float64}
    return pl.DataFrame([asdict(mean) for mean in study.means], {**schema, "low": pl.Float64, "high": pl.Float64})


def sections(study: Frontier, timed: pl.DataFrame, links: Mapping[str, str], drawn: Sequence[Figure]) -> list[Section]:
    """Return the report's sections; sections without data are left out."""
    note = (
        "Two cells are called different if Student's 95 % interval of their paired difference over seeds excludes 0; "
        "otherwise they are not distinguishable, which does not prove them equal. All cells share one learning rate."
    )
    parts = [
        Section("Findings", [Points(study.findings), note]),
        Section("Figures", list(drawn)),
        _cells(study),
        _differences(study),
        _latencies(timed),
        _runs(study, links),
        _missing(study),
    ]
    return [part for part in parts if part.blocks]


def _cells(study: Frontier) -> Section:
    by_cell = {(mean.cell, mean.metric): mean for mean in study.means}
    rows = []
    for cell in study.cells:
        numbers = [by_cell[cell, metric] for metric in METRICS]
        texts = [_mean(mean.mean, mean.low, mean.high, FORMATS.get(mean.metric, ".3f")) for mean in numbers]
        rows.append([Cell(cell), Cell(str(numbers[0].n)), *map(Cell, texts)])
    head = tuple(name.replace("_", " ") for name in ("cell", "seeds", *METRICS))
    return Section("Cells, mean and interval over seeds", [Table(head, rows, head[1:])] if rows else [])


def _differences(study: Frontier) -> Section:
    head = ("factor", "from", "to", "number", "seeds", "difference", "interval", "distinguishable")
    rows = [
        [
            *map(Cell, (d.factor, d.first, d.second, d.metric.replace("_", " "), str(d.n), f"{d.difference:+.4f}")),
            Cell("-" if d.low is None else f"{d.low:+.4f} to {d.high:+.4f}"),
            Cell("yes" if d.distinguishable else "no"),
        ]
        for d in study.differences
    ]
    return Section("Differences, paired by seed", [Table(head, rows, ("seeds", "difference"))] if rows else [])


def _latencies(timed: pl.DataFrame) -> Section:
    head = ("variant", "engine", "prompts", "p50 ms", "p95 ms", "p99 ms", "tokens/s", "other cores")
    rows = [
        [
            *map(Cell, (row["variant"], row["engine"], str(row["prompts"]))),
            *(Cell(f"{1000 * row[name]:.1f}") for name in ("p50_s", "p95_s", "p99_s")),
            Cell(f"{row['tokens_per_s']:.0f}"),
            Cell(f"{row['other_cores']:.2f}"),
        ]
        for row in timed.iter_rows(named=True)
    ]
    return Section("Latency", [Table(head, rows, head[2:])] if rows else [])


def _runs(study: Frontier, links: Mapping[str, str]) -> Section:
    rows = [[Cell(name), Cell(run, links.get(run, ""))] for name, run in study.runs.items()]
    return Section("MLflow runs", [Table(("variant", "run"), rows)] if rows else [])


def _missing(study: Frontier) -> Section:
    rows = [[Cell(name), Cell(reason)] for name, reason in study.missing.items()]
    return Section("Left out", [Table(("variant", "reason"), rows)] if rows else [])


def _mean(mean: float, low: float | None, high: float | None, shape: str) -> str:
    if low is None or high is None or low == high:
        return f"{mean:{shape}}"
    return f"{mean:{shape}} ({low:{shape}} to {high:{shape}})"


def _csv(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_csv(buffer)
    return buffer.getvalue()
