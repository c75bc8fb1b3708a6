"""The report of a comparison: what was measured, how sure it is, what it cost, and what follows."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from synth_assets.evals.guards import GUARD_MARGIN, DetectableEffect, GuardResult
from synth_assets.evals.unanswerable import MAX_LEFT_OUT_SHARE, REASONS
from synth_assets.reporting.display_names import display_name
from synth_assets.reporting.document import (
    Block,
    Cell,
    Figure,
    Points,
    Sample,
    Section,
    Table,
    cells,
    drawn,
    markdown,
    page,
)
from synth_assets.reporting.figures import benchmark_comparison, model_comparison
from synth_assets.schemas.records import BASE, Comparison, Metric, UnanswerableItems
from synth_assets.schemas.serialization import to_json
from synth_assets.stages.evaluation.profiles import Profile
from synth_assets.stages.evaluation.recommendations import which_method_when
from synth_assets.stages.evaluation.report_data import ReportData
from synth_assets.stages.evaluation.report_trainings import cost_section, filter_section, training_section
from synth_assets.storage.atomic import write_atomically

SUMMARY_COLUMNS = (
    *("model", "suite", "split", "metric", "value", "n", "unanswerable"),
    *("ci_low", "ci_high", "interval", "mlflow_run_id"),
)


def write_report(evidence: ReportData, folder: Path) -> list[str]:
    """Write report.md, report.html, report.json, summary.csv and the figures; returns the files' names.

    Each file is whole or not there; equal evidence gives equal files.
    """
    title, parts = "Comparison of models", sections(evidence)
    figures = [block for section in parts for block in section.blocks if isinstance(block, Figure)]
    files = {
        **{f"{figure.name}.png": figure.png for figure in figures},
        "summary.csv": summary(evidence.comparison).encode(),
        "report.json": to_json(evidence.comparison).encode(),
        "report.md": markdown(title, parts).encode(),
        "report.html": page(title, parts).encode(),
    }
    for name, content in files.items():
        write_atomically(folder / name, _writer(content))
    return list(files)


def summary(comparison: Comparison) -> str:
    """CSV: a row for each metric of each split and each win rate."""
    rows = [{name: getattr(m, name) for name in SUMMARY_COLUMNS} for m in (*comparison.metrics, *comparison.win_rates)]
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema_overrides={"value": pl.Float64}).write_csv(buffer)
    return buffer.getvalue().decode()


def sections(evidence: ReportData) -> list[Section]:
    """All of the report; a part without data is left out."""
    found = evidence.comparison
    parts = [
        Section(
            "Which method when", [Points(which_method_when(found, evidence.adapters, evidence.deciding)), _costs()]
        ),
        _scores(evidence),
        _unanswerable(found.unanswerable),
        cost_section(evidence),
        training_section(evidence),
        _tests(evidence),
        _detectable(evidence.detectable),
        _guards(evidence.guards),
        _without_overlap(evidence),
        _win_rates(evidence),
        _profiles(evidence.profiles),
        filter_section(evidence),
        _samples(found),
    ]
    return [part for part in parts if part.blocks]


def _costs() -> str:
    return (
        "Training seconds and memory are those of the adapter and of the adapters that it was made from; what its data "
        "took is not in them. Methods are called level where the Holm-corrected p is above .05."
    )


def _scores(evidence: ReportData) -> Section:
    found = evidence.comparison
    tested = [m for m in found.metrics if m.split == "test"]
    chosen = (
        f"Candidate: {display_name(found.candidate)}, the best on the validation split; the test split then judges."
    )
    blocks: list[Block] = [
        f"{chosen if found.candidate else 'There is no candidate.'} Each value leads to the MLflow run that holds the "
        "score of every item."
    ]
    if tested:
        blocks.append(
            drawn(
                "benchmark_comparison",
                "Test scores with intervals",
                lambda columns: benchmark_comparison(tested, columns=columns),
            )
        )
    others = [m for m in found.metrics if m.split != "test"]
    for suite, split, metric in dict.fromkeys((m.suite, m.split, m.metric) for m in (*tested, *others)):
        mine = [m for m in found.metrics if (m.suite, m.split, m.metric) == (suite, split, metric)]
        rows = [_score_row(m, _name(found, m.model), evidence.links) for m in mine]
        rows += [cells((display_name(model), f"failed: {reason}")) for model, reason in found.failures.items()]
        if split == "test":
            rows += _null_rows(evidence.nulls.get(suite, {}), metric)
        told = f"{suite}, {metric}, {split} split, {', '.join(dict.fromkeys(m.harness for m in mine))}"
        blocks += [told, Table(_HEAD, rows, _NUMBERS)]
    return Section("Scores", blocks)


_HEAD = ("model", "value", "interval", "n", "left out", "method")
_NUMBERS = ("value", "n", "left out")


def _null_rows(nulls: Mapping[str, Mapping[str, float]], metric: str) -> list[list[Cell]]:
    return [
        cells((f"answer: {name}", f"{values[metric]:.3f}", "", "", "", "no model"))
        for name, values in nulls.items()
        if metric in values
    ]


def _score_row(metric: Metric, name: str, links: Mapping[str, str]) -> list[Cell]:
    value = Cell(f"{metric.value:.3f}", links.get(metric.mlflow_run_id, ""))
    interval = f"{metric.ci_low:.3f} to {metric.ci_high:.3f}"
    return [Cell(name), value, *cells((interval, f"{metric.n:,}", f"{metric.unanswerable:,}", metric.interval))]


def _unanswerable(found: Sequence[UnanswerableItems]) -> Section:
    head = ("model", "suite", "split", "left out", "of", "share", "reason")
    rows = [
        cells(
            (
                display_name(one.model),
                one.suite,
                one.split,
                one.items,
                one.asked,
                f"{one.items / one.asked:.1%}",
                REASONS.get(one.reason, one.reason),
            )
        )
        for one in found
    ]
    told = (
        "Items that a model cannot take have no score: they are not in its n, and paired tests and guards leave them "
        f"out for both models. A suite with more than {MAX_LEFT_OUT_SHARE:.0%} of them is no basis for a comparison."
    )
    return Section("Items left out", [told, Table(head, rows, head[3:6])] if rows else [])


def _tests(evidence: ReportData) -> Section:
    tests = evidence.comparison.tests
    if not tests:
        return Section("Paired tests", [])
    link = next((evidence.links.get(m.mlflow_run_id, "") for m in evidence.comparison.metrics), "")
    head = ("pair", "points", "only first", "only second", "n", "left out", "p", "p, Holm")
    rows = [
        [
            Cell(f"{display_name(t.first)} → {display_name(t.second)}"),
            Cell(f"{100 * t.difference:+.1f}", link),
            *cells((t.only_first, t.only_second, t.n, t.left_out)),
            *cells((f"{t.p_value:.2g}", "-" if t.p_holm is None else f"{t.p_holm:.2g}")),
        ]
        for t in tests
    ]
    told = (
        f"On the same test items of {tests[0].suite} {tests[0].metric}, {tests[0].test}: points are the second "
        f"minus the first. The last column is corrected over these {len(tests)} tests (Holm)."
    )
    return Section("Paired tests", [told, Table(head, rows, head[1:])])


def _detectable(found: Sequence[DetectableEffect]) -> Section:
    rows = [
        cells((d.suite, d.metric, d.n, "no difference was seen" if d.effect is None else f"{100 * d.effect:.1f}"))
        for d in found
    ]
    head = ("suite", "metric", "n", "points")
    told = "The smallest true difference from the base model that a suite finds four times in five, alone, at p < .05."
    return Section("Smallest visible difference", [told, Table(head, rows, ("n", "points"))] if rows else [])


def _guards(found: Sequence[GuardResult]) -> Section:
    head = ("guards", "suite", "metric", "n", "left out", "points", "interval", "verdict")
    rows = [
        cells(
            (
                guard.guards,
                guard.suite,
                guard.metric,
                guard.found.n,
                guard.left_out,
                f"{100 * guard.found.difference:+.1f}",
                f"{100 * guard.found.low:+.1f} to {100 * guard.found.high:+.1f}",
                guard.found.verdict,
            )
        )
        for guard in found
    ]
    margin = f"{100 * GUARD_MARGIN:g} points"
    told = (
        "What the candidate must not lose against the base model. Held: the whole interval is above a loss of "
        f"{margin}; lost: the difference is a loss of {margin} or more, and the interval leaves 0 out; not shown: "
        f"what lies between, and every guard of which more than {MAX_LEFT_OUT_SHARE:.0%} of the items are left out."
    )
    return Section("Guards", [told, Table(head, rows, ("n", "left out", "points"))] if rows else [])


def _without_overlap(evidence: ReportData) -> Section:
    clean = {(m.model, m.suite, m.metric): m for m in evidence.comparison.without_overlap}
    if not clean:
        return Section("Without overlap", [])
    rows = []
    for metric in (m for m in evidence.comparison.metrics if m.split == "test"):
        other = clean.get((metric.model, metric.suite, metric.metric))
        link = evidence.links.get(metric.mlflow_run_id, "")
        clean_cells = Cell(f"{other.value:.3f}", link) if other else Cell("-"), Cell(str(other.n) if other else "0")
        name = _name(evidence.comparison, metric.model)
        rows.append(
            [
                *cells((name, metric.suite, metric.metric)),
                Cell(f"{metric.value:.3f}", link),
                Cell(str(metric.n)),
                *clean_cells,
            ]
        )
    head = ("model", "suite", "metric", "all items", "n", "without overlap", "n without")
    told = "All test items beside those that share no eight words in a row with what adapters were trained on."
    return Section("Without overlap", [told, Table(head, rows, head[3:])])


def _win_rates(evidence: ReportData) -> Section:
    found = evidence.comparison
    rows = [[*_score_row(m, _name(found, m.model), evidence.links), Cell(m.harness)] for m in found.win_rates]
    told = "How often the reward model prefers the candidate's answer to the base model's, ties as one half."
    return Section("Win rate", [told, Table((*_HEAD, "judge"), rows, _NUMBERS)] if rows else [])


def _profiles(found: Sequence[Profile]) -> Section:
    if not found:
        return Section("How they write", [])
    head = ("model", "n", "words", "sentences", "different pairs", "refusals", "cut off")
    rows = [
        cells(
            (
                display_name(one.model),
                one.n,
                f"{one.words:.1f}",
                f"{one.sentences:.2f}",
                "-" if one.distinct_pairs is None else f"{one.distinct_pairs:.1%}",
                f"{one.refusal_rate:.1%}",
                f"{one.cut_rate:.1%}",
            )
        )
        for one in found
    ]
    figure = drawn(
        "model_comparison",
        "Length, sentences and variety of the answers",
        lambda columns: model_comparison(_traits(found), columns=columns),
    )
    return Section("How they write", [figure, Table(head, rows, head[1:])])


def _traits(found: Sequence[Profile]) -> dict[str, dict[str, float]]:
    """Variety is left out where the models wrote no pair of words."""
    variety = {one.model: one.distinct_pairs for one in found if one.distinct_pairs is not None}
    n = " to ".join(map(str, sorted({min(one.n for one in found), max(one.n for one in found)})))
    return {
        f"words in an answer, n={n}": {one.model: one.words for one in found},
        f"sentences in an answer, n={n}": {one.model: one.sentences for one in found},
        **({"share of different pairs of words": variety} if variety else {}),
    }


def _samples(found: Comparison) -> Section:
    who = {"before": display_name(BASE), "after": display_name(found.candidate)}
    shown = [
        Sample(
            one["prompt"], [(f"{who[side]}, score {one[f'{side}_score']}", one[side]) for side in ("before", "after")]
        )
        for one in found.samples
    ]
    told = "Test prompts drawn by hash, so that nobody picked them; answered before and after training."
    return Section("Before and after", [told, *shown] if shown else [])


def _name(found: Comparison, model: str) -> str:
    return display_name(model) + (" (candidate)" if model == found.candidate else "")


def _writer(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write
