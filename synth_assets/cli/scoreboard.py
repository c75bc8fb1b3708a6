"""`synth scoreboard`: show the last run's result, or write it into README and docs/ with its evidence."""

import json
import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path

import polars as pl

from resources.deployment import PROJECT
from synth_assets.cli.session import Session
from synth_assets.evals.suite import items_of, null_scores
from synth_assets.evals.suites import SUITES
from synth_assets.schemas.records import Comparison, Decision
from synth_assets.stages.evaluation.scoreboard import scoreboard, suite_table
from synth_assets.storage.atomic import write_atomically
from synth_assets.storage.stored_files import read_table

BEGIN, END = "<!-- scoreboard: written by make scoreboard -->", "<!-- end of scoreboard -->"
README, RESULTS = Path("README.md"), Path("docs") / "results.md"
EVIDENCE = Path("docs") / "scoreboard.json"
ITEMS = Path("docs") / "scoreboard-items.parquet"
REPEATS_WITHIN = 0.01
"""Of a score of the published scoreboard that is measured anew on another processor, where sums are rounded in another
order: the largest difference of 40 scores was .0074 between two x86-64 machines (docs/results.md)."""
SHOWN_COLUMNS = ["model", "suite", "split", "item_id", "cluster", "metric", "score"]


def scoreboard_text(session: Session) -> str:
    """Scores, tests, answers and decision of the last run, then where everything lies and what to open next.

    Raises:
        ValueError: nothing was compared yet.
    """
    found = session.record("comparison", Comparison)
    if found is None:
        raise ValueError("nothing was compared yet: synth run")
    decision = session.record("promotion_decision", Decision)
    items = read_table(session.home / "tables" / "benchmark_items.parquet").filter(pl.col("split") == "test")
    nulls = {
        name: null_scores(SUITES[name], items_of(rows))
        for (name,), rows in items.partition_by("suite", as_dict=True, maintain_order=True).items()
    }
    return f"{scoreboard(found, decision, null_scores=nulls)}\n{_where(session.home)}"


def unrepeated(published: pl.DataFrame, scores: pl.DataFrame) -> list[str]:
    """Return which published mean scores another run does not repeat within REPEATS_WITHIN.

    Args:
        published: the per-item scores beside the scoreboard.
        scores: ITEM_SCORES of another run with the same models and data; what only one of the two measured is left out.
    """
    keys = ["model", "suite", "split", "metric"]
    both = published.join(scores.select(*keys, "item_id", again="score"), on=[*keys, "item_id"])
    means = both.group_by(keys, maintain_order=True).agg(pl.col("score").mean(), pl.col("again").mean())
    apart = means.filter((pl.col("score") - pl.col("again")).abs() > REPEATS_WITHIN)
    return [
        f"{row['model']} {row['suite']} {row['split']} {row['metric']}: expected {row['score']:.4f} within "
        f"{REPEATS_WITHIN:g}, got {row['again']:.4f}"
        for row in apart.iter_rows(named=True)
    ]


def compared_since(session: Session, moment: float) -> bool:
    """Whether models were compared after `moment`, in seconds since the epoch."""
    path = session.home / "tables" / "comparison.json"
    return path.is_file() and path.stat().st_mtime >= moment


def write_scoreboard(session: Session) -> str:
    """Write the first suite's table into README.md, the scoreboard into docs/results.md and its evidence beside that.

    Raises:
        ValueError: nothing was compared yet, or one of the two pages has lost its marks.
    """
    comparison = session.record("comparison", Comparison)
    if comparison is None:
        raise ValueError("nothing was compared yet: synth run")
    decision = session.record("promotion_decision", Decision)
    run = {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
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
    scores = read_table(session.home / "tables" / "benchmark_scores.parquet").select(SHOWN_COLUMNS)
    evidence = {
        "run": run,
        "metrics": [asdict(metric) for metric in comparison.metrics],
        "tests": [asdict(test) for test in comparison.tests],
    }
    write_atomically(PROJECT / ITEMS, lambda temporary: scores.write_parquet(temporary, compression="zstd"))
    _write(PROJECT / EVIDENCE, json.dumps(evidence, indent=1, sort_keys=True) + "\n")
    for path, text in texts.items():
        _write(PROJECT / path, text)
    return f"written: {', '.join(map(str, (README, RESULTS, EVIDENCE, ITEMS)))}"


def key_lines(comparison: Comparison) -> str:
    """Return what README shows: the table of the suite that selects the candidate, each model with n and interval."""
    return suite_table(comparison, comparison.metrics[0].suite)


def with_block(page: str, text: str, origin: str) -> str:
    """Return a page with what stands between its marks replaced by a text and its origin; empty without the marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{BEGIN}\n```text\n{text}```\n{origin}\n{END}{after}" if begin and end else ""


def _where(home: Path) -> str:
    return "\n".join(
        [
            f"Tables, adapters, registry and history: {home}",
            "Next: make ui                 the asset graph, checks, lineage and the registry",
            "      synth ask 'What is the capital of France?'",
            "      synth status | champion | import FILE | run --batch second",
        ]
    )


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: _filled(temporary, text))


def _filled(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()
