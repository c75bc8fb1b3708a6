"""Plain-text scoreboard of 80 columns: scores with n and interval, paired tests, sample answers, decision."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from synth_assets.evals.unanswerable import unanswerable_text
from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.preference_rounds import ROUNDS
from synth_assets.schemas.records import BASE, Comparison, Decision, Metric, PairedTest
from synth_assets.stats.power import minimum_detectable_effect
from synth_assets.training.methods import ADAPTERS

WIDTH = 80
NAME_WIDTH = max(map(len, map(display_name, ADAPTERS))) + 2


def scoreboard(
    comparison: Comparison, decision: Decision | None = None, *, null_scores: Mapping[str, Any] | None = None
) -> str:
    """Return the result of one run as text without colour, at most 80 columns wide.

    Args:
        comparison: metrics, tests and samples.
        decision: the promotion decision; None if there is none.
        null_scores: value by suite, null model and metric, as from `evals.suite.null_scores`; shown below the suite.
    """
    parts = [suite_table(comparison, suite, (null_scores or {}).get(suite, {})) for suite in _suites(comparison)]
    parts += [legend(comparison), paired_tests_table(comparison.tests), answers(comparison), decision_text(decision)]
    return "\n\n".join(part for part in parts if part) + "\n"


def suite_table(comparison: Comparison, suite: str, nulls: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """Return one row for each model on the test split of a suite; failed models as "failed: reason"."""
    shown = [m for m in comparison.metrics if m.suite == suite and m.split == "test"]
    names = list(dict.fromkeys(m.metric for m in shown))[:2]
    lines = [
        f"{suite}, test split, {', '.join(dict.fromkeys(m.harness for m in shown))}",
        f"  {'':{NAME_WIDTH}}{'n':>6}" + "".join(f"{name:>8}  {'95 % interval':15}" for name in names),
    ]
    for model in _models(comparison):
        row = {m.metric: m for m in shown if m.model == model}
        mark = "*" if model == comparison.candidate else " "
        head = f"{mark} {display_name(model):{NAME_WIDTH}}"
        if model in comparison.failures:
            lines.append(_cut(f"{head}failed: {' '.join(comparison.failures[model].split())}"))
        elif row:
            lines.append(f"{head}{next(iter(row.values())).n:>6}" + "".join(_cell(row.get(name)) for name in names))
        elif any(
            (count.model, count.suite, count.split) == (model, suite, "test") for count in comparison.unanswerable
        ):
            lines.append(f"{head}{0:>6}" + _cell(None) * len(names))
    for name, values in (nulls or {}).items():
        cells = "".join(f"{values[n]:>8.3f}  {'':15}" if n in values else f"{'-':>8}  {'':15}" for n in names)
        lines.append(f"  {'answer: ' + name:{NAME_WIDTH}}{'':6}{cells}")
    for counted in comparison.unanswerable:
        if (counted.suite, counted.split) == (suite, "test"):
            lines += _wrapped("  left out: ", unanswerable_text(counted))
    return "\n".join(line.rstrip() for line in lines)


def legend(comparison: Comparison) -> str:
    """Return the explanation of marks and special rows of the tables."""
    intervals = ", ".join(sorted({m.interval for m in comparison.metrics}))
    lines = [f"intervals: {intervals}; answer: a null model that gives a fixed answer"]
    if comparison.candidate:
        lines.insert(0, "* candidate: best on the validation split")
    lines += [
        f"{display_name(round_.control)}: control, the data of {display_name(round_.adapter)} without its loss; "
        "never a candidate"
        for round_ in ROUNDS
        if round_.control in _models(comparison)
    ]
    return "\n".join(lines)


def paired_tests_table(tests: Sequence[PairedTest]) -> str:
    """Return the paired comparisons; points are the second model's score minus the first's."""
    if not tests:
        return ""
    lines = [
        f"Paired on the same items of {tests[0].suite} {tests[0].metric}, {tests[0].test}",
        f"  {'':42}{'points':>7}{'only 1st':>10}{'only 2nd':>10}{'p':>9}",
    ]
    for test in tests:
        pair = f"{display_name(test.first)} -> {display_name(test.second)}"
        p_value = _p(test.p_value if test.p_holm is None else test.p_holm)
        lines.append(
            f"  {pair:42}{100 * test.difference:>+7.1f}{test.only_first:>10}{test.only_second:>10}{p_value:>9}"
        )
    corrected = "" if tests[0].p_holm is None else f"; p is Holm-corrected over these {len(tests)} tests"
    lines.append(f"  {_item_counts(tests)}{corrected}")
    if effect := _largest_detectable_effect(tests):
        lines.append(f"  minimum detectable effect: {100 * effect:.1f} points (80 % power, p < .05, uncorrected)")
    return "\n".join(lines)


def answers(comparison: Comparison) -> str:
    """Return test prompts sampled by hash, with the answers before and after training."""
    if not comparison.samples:
        return ""
    lines = [f"Before (base) and after ({display_name(comparison.candidate)}), sampled by hash; + right, - wrong"]
    for sample in comparison.samples:
        lines += _wrapped("  > ", sample["prompt"])
        lines += _wrapped(f"  {_mark(sample['before_score'])} before: ", sample["before"])
        lines += _wrapped(f"  {_mark(sample['after_score'])} after:  ", sample["after"])
    return "\n".join(lines)


def decision_text(decision: Decision | None) -> str:
    """Return the decision and the result of each clause."""
    if decision is None:
        return ""
    version = f" version {decision.candidate_version}" if decision.candidate_version else ""
    head = f"{decision.outcome.capitalize()}: {display_name(decision.candidate) or 'no candidate'}{version}"
    against = f", against {display_name(decision.opponent)}" if decision.opponent else ""
    lines = _wrapped("", head + against)
    if decision.reason:
        lines += _wrapped("  ", decision.reason)
    for clause in decision.clauses:
        mark = "pass" if clause.passed else "FAIL"
        lines += _wrapped(f"  {mark} ", f"{clause.name}: {clause.actual} (required: {clause.expected})")
    return "\n".join(lines)


def markdown_table(comparison: Comparison) -> str:
    """Return a Markdown table of all suites and metrics of the test split."""
    rows = ["| model | suite | metric | n | left out | value | 95 % interval |", "|---|---|---|---:|---:|---:|---|"]
    for model in _models(comparison):
        name = display_name(model) + (" (candidate)" if model == comparison.candidate else "")
        if model in comparison.failures:
            reason = " ".join(comparison.failures[model].split()).replace("|", "\\|")
            rows.append(f"| {name} | failed: {reason} | | | | | |")
        for m in comparison.metrics:
            if m.model == model and m.split == "test":
                interval = f"{m.ci_low:.3f} to {m.ci_high:.3f}"
                n = f"{m.n} | {m.unanswerable}"
                rows.append(f"| {name} | {m.suite} | {m.metric} | {n} | {m.value:.3f} | {interval} |")
    left_out = [unanswerable_text(count) for count in comparison.unanswerable if count.split == "test"]
    return "\n".join([*rows, *([""] if left_out else []), *left_out])


def _suites(comparison: Comparison) -> list[str]:
    measured = (*comparison.metrics, *comparison.unanswerable)
    return list(dict.fromkeys(m.suite for m in measured if m.split == "test"))


def _models(comparison: Comparison) -> list[str]:
    models = [*dict.fromkeys(m.model for m in comparison.metrics), *comparison.failures]
    ranks = {name: rank for rank, name in enumerate((BASE, *ADAPTERS))}
    return sorted(dict.fromkeys(models), key=lambda name: ranks.get(name, len(ranks)))


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return f"{'-':>8}  {'':15}"
    interval = f"{metric.ci_low:.3f} to {metric.ci_high:.3f}"
    return f"{metric.value:>8.3f}  {interval:15}"


def _largest_detectable_effect(tests: Sequence[PairedTest]) -> float:
    """Return the minimum detectable effect of the pair that differs on most items, an upper bound; 0 if undefined."""
    rate, n = max(((test.only_first + test.only_second) / test.n, test.n) for test in tests)
    effect = minimum_detectable_effect(n, rate) if rate else math.inf
    return effect if math.isfinite(effect) else 0.0


def _item_counts(tests: Sequence[PairedTest]) -> str:
    """Return how many items the tests compare, and how many are left out because a model cannot answer them."""
    counts = sorted({test.n for test in tests})
    shown = f"{counts[0]} items each" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} items"
    most = max(test.left_out for test in tests)
    return f"{shown}, up to {most} left out that one of the models cannot answer" if most else shown


def _p(value: float) -> str:
    return "< .0001" if value < 0.0001 else f"{value:.4f}".replace("0.", ".", 1)


def _mark(score: str) -> str:
    return {"1": "+", "0": "-"}.get(score, " ")


def _wrapped(head: str, text: str) -> list[str]:
    """Wrap text under its head, with line breaks as " / " and control characters as code points."""
    joined = " / ".join(line.strip() for line in text.splitlines() if line.strip()) or "(nothing)"
    joined = "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in joined)
    return textwrap.wrap(
        joined, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), max_lines=4, placeholder=" ..."
    )


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."
