"""`synth scoreboard`: show the results of the last run, or write them into README.md and docs/ with their evidence."""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import polars as pl

from resources.deployment import PROJECT
from synth_assets.cli.commit import git
from synth_assets.cli.session import Session
from synth_assets.evals.suite import items_of, null_scores
from synth_assets.evals.suites import SUITES
from synth_assets.schemas.records import Comparison, Decision
from synth_assets.stages.evaluation.scoreboard import scoreboard, suite_table
from synth_assets.storage.atomic import write_atomically, write_text
from synth_assets.storage.stored_files import read_table

BEGIN, END = "<!-- scoreboard: written by make scoreboard -->", "<!-- end of scoreboard -->"
README, RESULTS = Path("README.md"), Path("docs") / "results.md"
EVIDENCE = Path("docs") / "scoreboard.json"
ITEMS = Path("docs") / "scoreboard-items.parquet"
REPRODUCIBILITY_TOLERANCE = 0.01
"""Largest accepted difference of a mean score on another processor, which rounds sums in another order. The largest of
40 differences between two x86-64 machines was .0074 (docs/results.md)."""
ITEM_COLUMNS = ["model", "suite", "split", "item_id", "cluster", "metric", "score"]


def scoreboard_text(session: Session) -> str:
    """Return the scores, tests, answers and decision of the last run, with the paths and next commands.

    Raises:
        ValueError: no models have been compared.
    """
    comparison = session.record("comparison", Comparison)
    if comparison is None:
        raise ValueError("no models have been compared yet; run `synth run` first")
    decision = session.record("promotion_decision", Decision)
    items = read_table(session.home / "tables" / "benchmark_items.parquet").filter(pl.col("split") == "test")
    nulls = {
        name: null_scores(SUITES[name], items_of(rows))
        for (name,), rows in items.partition_by("suite", as_dict=True, maintain_order=True).items()
    }
    return f"{scoreboard(comparison, decision, null_scores=nulls)}\n{_next_steps(session.home)}"


def irreproducible_scores(published: pl.DataFrame, scores: pl.DataFrame) -> list[str]:
    """List the published mean scores that another run does not reproduce within REPRODUCIBILITY_TOLERANCE.

    Args:
        published: the published per-item scores.
        scores: ITEM_SCORES of another run with the same models and data. Items that only one side has are ignored.
    """
    keys = ["model", "suite", "split", "metric"]
    both = published.join(scores.select(*keys, "item_id", repeated="score"), on=[*keys, "item_id"])
    means = both.group_by(keys, maintain_order=True).agg(pl.col("score").mean(), pl.col("repeated").mean())
    different = means.filter((pl.col("score") - pl.col("repeated")).abs() > REPRODUCIBILITY_TOLERANCE)
    return [
        f"{row['model']} {row['suite']} {row['split']} {row['metric']}: expected {row['score']:.4f} within "
        f"{REPRODUCIBILITY_TOLERANCE:g}, got {row['repeated']:.4f}"
        for row in different.iter_rows(named=True)
    ]


def compared_since(session: Session, moment: float) -> bool:
    """Return True if models were compared after `moment`, in seconds since the epoch."""
    path = session.home / "tables" / "comparison.json"
    return path.is_file() and path.stat().st_mtime >= moment


def write_scoreboard(session: Session) -> str:
    """Write the first suite's table into README.md, the scoreboard into docs/results.md and its evidence beside that.

    Raises:
        ValueError: no models have been compared, or one of the two pages lacks the marker lines.
    """
    comparison = session.record("comparison", Comparison)
    if comparison is None:
        raise ValueError("no models have been compared yet; run `synth run` first")
    decision = session.record("promotion_decision", Decision)
    run = {
        "commit": git("rev-parse", "--short=12", "HEAD"),
        "changed_files": len(git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "tier": session.tier_name,
        "mlflow_run_id": comparison.metrics[0].mlflow_run_id,
    }
    origin = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.items() if value != 0)
    pages = {
        README: f"{key_lines(comparison)}\n",
        RESULTS: scoreboard(comparison, decision),
    }
    texts = {path: with_block((PROJECT / path).read_text("utf-8"), text, origin) for path, text in pages.items()}
    if unmarked := [str(path) for path, text in texts.items() if not text]:
        raise ValueError(f"{', '.join(unmarked)}: expected the lines {BEGIN!r} and {END!r}; put them back")
    scores = read_table(session.home / "tables" / "benchmark_scores.parquet").select(ITEM_COLUMNS)
    evidence = {
        "run": run,
        "metrics": [asdict(metric) for metric in comparison.metrics],
        "tests": [asdict(test) for test in comparison.tests],
    }
    write_atomically(PROJECT / ITEMS, lambda temporary: scores.write_parquet(temporary, compression="zstd"))
    write_text(PROJECT / EVIDENCE, json.dumps(evidence, indent=1, sort_keys=True) + "\n")
    for path, text in texts.items():
        write_text(PROJECT / path, text)
    return f"written: {', '.join(map(str, (README, RESULTS, EVIDENCE, ITEMS)))}"


def key_lines(comparison: Comparison) -> str:
    """Return what README shows: the table of the suite that selects the candidate, each model with n and interval."""
    return suite_table(comparison, comparison.metrics[0].suite)


def with_block(page: str, text: str, origin: str) -> str:
    """Return a page with what stands between its marks replaced by a text and its origin; empty without the marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{BEGIN}\n```text\n{text}```\n{origin}\n{END}{after}" if begin and end else ""


def _next_steps(home: Path) -> str:
    return "\n".join(
        [
            f"Tables, adapters, registry and history: {home}",
            "Next: make ui                 open the asset graph, checks, lineage and the registry",
            "      synth ask 'What is the capital of France?'",
            "      synth status | champion | import FILE | run --batch second",
        ]
    )
