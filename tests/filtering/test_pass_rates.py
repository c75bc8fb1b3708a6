from collections.abc import Callable

import polars as pl

from synth_assets.stages.filtering.apply import FilterResult
from synth_assets.stages.filtering.pass_rates import FACTORS, SWEPT, markdown
from synth_assets.stages.filtering.spec import FilterSpec

Filtered = Callable[..., FilterResult]
Rows = Callable[..., pl.DataFrame]


def test_pass_rates_are_those_of_each_rule_alone(filtered: Filtered, rows_of: Rows) -> None:
    answers = ("Jupiter.", "It is Jupiter.", "It is the planet Jupiter.", "Of all planets it is the planet Jupiter.")
    rows = rows_of(*((f"Name the largest planet, try {place}.", answer) for place, answer in enumerate(answers)))
    rates = filtered(rows, spec=FilterSpec(max_response_words=4)).pass_rates.filter(reason="response_too_long")
    assert rates["limit"].unique().to_list() == [4]
    assert rates["threshold"].to_list() == [4 * factor for factor in FACTORS]
    # answers of 1, 3, 5 and 8 words compared with 1, 2, 3, 3.6, 4, 4.4, 5, 6 and 8
    assert rates["pass_rate"].to_list() == [0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 1.0]


def test_chunks_add_up_and_each_swept_rule_has_a_line(filtered: Filtered, rows_of: Rows) -> None:
    rows = rows_of(("Name a bird.", "A crow."), ("Name a fish.", "A carp.</s>"))
    rates = filtered(rows).pass_rates
    assert set(rates["reason"]) == {rule.reason for rule in SWEPT}
    table = markdown(rates)
    assert len(table.splitlines()) == 2 + len(SWEPT)
    assert "| echo | 0.9 | 100.00% |" in table
