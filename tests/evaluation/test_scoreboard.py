from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import polars as pl
import pytest

from synth_assets.evals.comparison import compare
from synth_assets.evals.scoring import metrics
from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.records import AdapterRecord, Clause, Comparison, Decision
from synth_assets.stages.evaluation.scoreboard import WIDTH, markdown_table, scoreboard

Scored = Callable[[Mapping[str, Sequence[float | None]]], pl.DataFrame]
RIGHT = {
    "base": 2,
    "prompt_tuning_adapter": 6,
    "lora_adapter": 12,
    "rejection_sampling_adapter": 15,
    "dpo_control_adapter": 13,
}
ENGINES = dict.fromkeys(RIGHT, "fake 1")
DECISION = Decision(
    outcome="refused",
    candidate="rejection_sampling_adapter",
    candidate_version="7",
    opponent="base",
    opponent_version="",
    clauses=[
        Clause("minimum effect", True, "65.0 points", "2.0"),
        Clause("checks passed", False, "adapter_is_zero", "all"),
    ],
    reason="a check of the candidate's own data is red",
)


@pytest.fixture
def result(scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]) -> Comparison:
    scores = scored({name: [1.0] * count + [0.0] * (20 - count) for name, count in RIGHT.items()})
    failed = [
        replace(a, failure="the loss\nis NaN at step 3, " * 9) if a.name == "dpo_adapter" else a for a in adapters
    ]
    return compare(metrics(scores, engines=ENGINES, data_hash="d"), scores, items, failed)


def row(text: str, name: str) -> str:
    """The first line about a model."""
    return next(line for line in text.splitlines() if line[2:].startswith(name))


def test_every_model_has_a_row_with_n_value_and_interval(result: Comparison) -> None:
    text = scoreboard(result, DECISION)
    assert row(text, "base").split() == ["base", "20", "0.100", "0.028", "to", "0.301"]
    assert row(text, "LoRA").split() == ["LoRA", "20", "0.600", "0.387", "to", "0.781"]
    assert row(text, "rejection sampling").startswith("* rejection sampling")
    assert row(text, "DPO  ").split(maxsplit=1)[1].startswith("failed: the loss is NaN at step 3")
    assert row(text, "DPO control").split()[2:4] == ["20", "0.650"]


def test_no_line_is_longer_than_the_terminal(result: Comparison) -> None:
    long = replace(
        result, samples=[{**sample, "after": "word " * 300, "before": "x" * 500} for sample in result.samples]
    )
    text = scoreboard(
        long, DECISION, null_scores={"world_instructions": {"constant": {"strict": 0.0, "lenient": 0.01}}}
    )
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert "answer: constant" in text


def test_comparisons_show_points_and_p(result: Comparison) -> None:
    line = row(scoreboard(result), "base -> rejection sampling")
    # 13 items only the second's, none the first's: p = 2 / 2**13 = .000244, the smallest of seven
    assert line.split()[4:] == ["+65.0", "0", "13", ".0017"]
    text = scoreboard(result)
    assert "20 items each; p is Holm-corrected over these 7 tests" in text
    # 13 of 20 items differ at most: (1.959964 sqrt(.65) + .841621 sqrt(.65 - d^2)) / sqrt(20) = d at .476
    assert "minimum detectable effect: 47.6 points (80 % power, p < .05, uncorrected)" in text


def test_answers_show_before_and_after_with_marks(result: Comparison) -> None:
    text = scoreboard(result)
    assert text.count("before: base says") == text.count("after:  rejection_sampling_adapter says") == 5
    hostile = [{**result.samples[0], "after": "line\n\x1b[31mred\x07"}]
    shown = scoreboard(replace(result, samples=hostile))
    assert "line / <U+001B>[31mred<U+0007>" in shown
    assert "\x1b" not in shown


def test_the_decision_lists_which_clause_failed(result: Comparison) -> None:
    text = scoreboard(result, DECISION)
    assert "Refused: rejection sampling version 7, against base" in text
    assert "FAIL checks passed: adapter_is_zero (required: all)" in text
    assert "pass minimum effect: 65.0 points (required: 2.0)" in text
    assert "Refused" not in scoreboard(result)


def test_an_unknown_model_keeps_its_name() -> None:
    assert display_name("grpo_adapter") == "grpo"


def test_markdown_has_a_row_for_each_metric_and_failure(result: Comparison) -> None:
    lines = markdown_table(result).splitlines()
    assert len(lines) == 2 + 5 + 1
    assert "| base | world_instructions | strict | 20 | 0 | 0.100 | 0.028 to 0.301 |" in lines
    assert any(line.startswith("| DPO | failed: the loss is NaN") for line in lines)
