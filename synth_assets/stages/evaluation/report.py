"""Report of a comparison in Markdown, HTML, JSON and CSV: recommendations, scores, tests, costs and figures."""

import io
from collections.abc import Mapping, Sequence
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
from synth_assets.stages.evaluation.recommendations import recommendations
from synth_assets.stages.evaluation.report_data import ReportData
from synth_assets.stages.evaluation.report_trainings import cost_section, filter_section, training_section
from synth_assets.storage.atomic import write_bytes

MAX_FINDINGS = 3  # at the top of the page
SUMMARY_COLUMNS = (
    *("model", "suite", "split", "metric", "value", "n", "unanswerable"),
    *("ci_low", "ci_high", "interval", "mlflow_run_id"),
)


def write_report(data: ReportData, folder: Path) -> list[str]:
    """Write report.md, report.html, report.json, summary.csv and the figures, and return their names.

    Each file is written atomically; equal data gives equal files.
    """
    title, parts = "Comparison of models", sections(data)
    findings = recommendations(data.comparison, data.adapters, data.deciding)
    figures = [block for section in parts for block in section.blocks if isinstance(block, Figure)]
    files = {
        **{f"{figure.name}.png": figure.png for figure in figures},
        "summary.csv": summary(data.comparison).encode(),
        "report.json": to_json(data.comparison).encode(),
        "report.md": markdown(title, parts).encode(),
        "report.html": page(title, parts, findings[:MAX_FINDINGS]).encode(),
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
    return list(files)


def summary(comparison: Comparison) -> str:
    """Return CSV with one row for each metric of each split and each win rate."""
    rows = [{name: getattr(m, name) for name in SUMMARY_COLUMNS} for m in (*comparison.metrics, *comparison.win_rates)]
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema_overrides={"value": pl.Float64}).write_csv(buffer)
    return buffer.getvalue().decode()


def sections(data: ReportData) -> list[Section]:
    """Return the report's sections; sections without data are left out."""
    comparison = data.comparison
    parts = [
        Section("Recommendations", [Points(recommendations(comparison, data.adapters, data.deciding)), _notes()]),
        _scores(data),
        _unanswerable(comparison.unanswerable),
        cost_section(data),
        training_section(data),
        _tests(data),
        _detectable(data.detectable),
        _guards(data.guards),
        _without_overlap(data),
        _win_rates(data),
        _profiles(data.profiles),
        filter_section(data),
        _samples(comparison),
    ]
    return [part for part in parts if part.blocks]


def _notes() -> str:
    return (
        "Training seconds and memory include the adapters that an adapter was trained from, but not the generation of "
        "its data. A difference is significant if the Holm-corrected p is at most .05."
    )


def _scores(data: ReportData) -> Section:
    comparison = data.comparison
    tested = [m for m in comparison.metrics if m.split == "test"]
    chosen = f"Candidate: {display_name(comparison.candidate)}, the best on the validation split."
    blocks: list[Block] = [
        f"{chosen if comparison.candidate else 'There is no candidate.'} Each value links to the MLflow run that holds "
        "the score of every item."
    ]
    if tested:
        blocks.append(
            drawn(
                "benchmark_comparison",
                "Test scores with intervals",
                lambda columns: benchmark_comparison(tested, columns=columns),
            )
        )
    others = [m for m in comparison.metrics if m.split != "test"]
    for suite, split, metric in dict.fromkeys((m.suite, m.split, m.metric) for m in (*tested, *others)):
        rows_of_metric = [m for m in comparison.metrics if (m.suite, m.split, m.metric) == (suite, split, metric)]
        rows = [_score_row(m, _name(comparison, m.model), data.links) for m in rows_of_metric]
        rows += [cells((display_name(model), f"failed: {reason}")) for model, reason in comparison.failures.items()]
        if split == "test":
            rows += _null_rows(data.nulls.get(suite, {}), metric)
        heading = f"{suite}, {metric}, {split} split, {', '.join(dict.fromkeys(m.harness for m in rows_of_metric))}"
        blocks += [heading, Table(_HEAD, rows, _NUMBERS)]
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


def _unanswerable(counts: Sequence[UnanswerableItems]) -> Section:
    head = ("model", "suite", "split", "left out", "of", "share", "reason")
    rows = [
        cells(
            (
                display_name(count.model),
                count.suite,
                count.split,
                count.items,
                count.asked,
                f"{count.items / count.asked:.1%}",
                REASONS.get(count.reason, count.reason),
            )
        )
        for count in counts
    ]
    note = (
        "Items that a model cannot answer have no score: they do not count in its n, and paired tests and guards leave "
        f"them out for both models. More than {MAX_LEFT_OUT_SHARE:.0%} in a suite are too many for a comparison."
    )
    return Section("Items left out", [note, Table(head, rows, head[3:6])] if rows else [])


def _tests(data: ReportData) -> Section:
    tests = data.comparison.tests
    if not tests:
        return Section("Paired tests", [])
    link = next((data.links.get(m.mlflow_run_id, "") for m in data.comparison.metrics), "")
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
    note = (
        f"On the same test items of {tests[0].suite} {tests[0].metric}, {tests[0].test}. Points are the second model's "
        f"score minus the first's. The last column is Holm-corrected over these {len(tests)} tests."
    )
    return Section("Paired tests", [note, Table(head, rows, head[1:])])


def _detectable(effects: Sequence[DetectableEffect]) -> Section:
    rows = [
        cells((d.suite, d.metric, d.n, "no difference observed" if d.effect is None else f"{100 * d.effect:.1f}"))
        for d in effects
    ]
    head = ("suite", "metric", "n", "points")
    note = "Minimum detectable effect of each suite against the base model: 80 % power, p < .05, uncorrected."
    return Section("Minimum detectable effect", [note, Table(head, rows, ("n", "points"))] if rows else [])


def _guards(guards: Sequence[GuardResult]) -> Section:
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
        for guard in guards
    ]
    margin = f"{100 * GUARD_MARGIN:g} points"
    note = (
        "Non-inferiority of the candidate to the base model. Held: the whole interval is above a loss of "
        f"{margin}; lost: the difference is a loss of {margin} or more, and the interval excludes 0; not shown: "
        f"inconclusive, or more than {MAX_LEFT_OUT_SHARE:.0%} of the items are left out."
    )
    return Section("Guards", [note, Table(head, rows, ("n", "left out", "points"))] if rows else [])


def _without_overlap(data: ReportData) -> Section:
    clean = {(m.model, m.suite, m.metric): m for m in data.comparison.without_overlap}
    if not clean:
        return Section("Without overlap", [])
    rows = []
    for metric in (m for m in data.comparison.metrics if m.split == "test"):
        other = clean.get((metric.model, metric.suite, metric.metric))
        link = data.links.get(metric.mlflow_run_id, "")
        clean_cells = Cell(f"{other.value:.3f}", link) if other else Cell("-"), Cell(str(other.n) if other else "0")
        name = _name(data.comparison, metric.model)
        rows.append(
            [
                *cells((name, metric.suite, metric.metric)),
                Cell(f"{metric.value:.3f}", link),
                Cell(str(metric.n)),
                *clean_cells,
            ]
        )
    head = ("model", "suite", "metric", "all items", "n", "without overlap", "n without")
    note = "Scores on all test items, and on those that share no eight consecutive words with training texts."
    return Section("Without overlap", [note, Table(head, rows, head[3:])])


def _win_rates(data: ReportData) -> Section:
    comparison = data.comparison
    rows = [[*_score_row(m, _name(comparison, m.model), data.links), Cell(m.harness)] for m in comparison.win_rates]
    note = "Share of items on which the reward model prefers the candidate's answer to the base's; ties count one half."
    return Section("Win rate", [note, Table((*_HEAD, "judge"), rows, _NUMBERS)] if rows else [])


def _profiles(profiles: Sequence[Profile]) -> Section:
    if not profiles:
        return Section("Answer style", [])
    head = ("model", "n", "words", "sentences", "different pairs", "refusals", "cut off")
    rows = [
        cells(
            (
                display_name(profile.model),
                profile.n,
                f"{profile.words:.1f}",
                f"{profile.sentences:.2f}",
                "-" if profile.distinct_pairs is None else f"{profile.distinct_pairs:.1%}",
                f"{profile.refusal_rate:.1%}",
                f"{profile.cut_rate:.1%}",
            )
        )
        for profile in profiles
    ]
    figure = drawn(
        "model_comparison",
        "Length, sentences and variety of the answers",
        lambda columns: model_comparison(_traits(profiles), columns=columns),
    )
    return Section("Answer style", [figure, Table(head, rows, head[1:])])


def _traits(profiles: Sequence[Profile]) -> dict[str, dict[str, float]]:
    """Return the values of the figure's panels; variety is left out if the models wrote no pair of words."""
    variety = {profile.model: profile.distinct_pairs for profile in profiles if profile.distinct_pairs is not None}
    n = " to ".join(map(str, sorted({min(profile.n for profile in profiles), max(profile.n for profile in profiles)})))
    return {
        f"words in an answer, n={n}": {profile.model: profile.words for profile in profiles},
        f"sentences in an answer, n={n}": {profile.model: profile.sentences for profile in profiles},
        **({"share of different pairs of words": variety} if variety else {}),
    }


def _samples(comparison: Comparison) -> Section:
    names = {"before": display_name(BASE), "after": display_name(comparison.candidate)}
    shown = [
        Sample(
            sample["prompt"],
            [(f"{names[side]}, score {sample[f'{side}_score']}", sample[side]) for side in ("before", "after")],
            one_right=sample["before_score"] != sample["after_score"],
        )
        for sample in comparison.samples
    ]
    note = "Test prompts sampled by hash, answered before and after training."
    return Section("Before and after", [note, *shown] if shown else [])


def _name(comparison: Comparison, model: str) -> str:
    return display_name(model) + (" (candidate)" if model == comparison.candidate else "")
