"""Metadata of the filtered tables: rows by reason, samples and a figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.reporting.escaping import escaped, escaped_sample
from synth_assets.reporting.figures import filtering_stats
from synth_assets.stages.filtering.decisions import CONTAMINATED, SEMANTIC_ITEM
from synth_assets.stages.filtering.preferences import PREFIX
from synth_assets.stages.filtering.reviews import REVIEWED
from synth_assets.stages.filtering.rules import RULES
from synth_assets.storage.retractions import RECALLED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_ROWS = 10
ITEM_REASONS = (CONTAMINATED, SEMANTIC_ITEM)
BY_PEOPLE = {RECALLED: "recalled by a person", REVIEWED: "decision of a reviewer"}
"""Family of the reasons that are decisions of people."""
ITEM_CHARACTERS = 100  # of a cell in the table of benchmark items


def stats_figure(kept: pl.LazyFrame, rejected: pl.LazyFrame) -> "Figure":
    """Return the figure filtering_stats of the kept rows' scores and the rejected rows' reasons."""
    scores = kept.select("score").collect()["score"].to_list()
    reasons = dict(rejected.group_by("reason").len().collect().iter_rows())
    return filtering_stats({"kept": len(scores), **reasons}, scores)


def reasons_table(reasons: Mapping[str, int], total: int) -> str:
    """Return a table of rejected rows by reason, with the rule's family and the share of all rows."""
    family = {**{rule.reason: rule.family for rule in RULES}, **BY_PEOPLE}
    rows = [
        f"| {reason} | {family.get(reason.removeprefix(PREFIX), 'duplicates and benchmarks')} | {count} "
        f"| {count / total:.2%} |"
        for reason, count in reasons.items()
    ]
    return "\n".join(["| reason | family | rows | share |", "|---|---|---:|---:|", *rows])


def items_found(rejected: pl.LazyFrame) -> str:
    """Return a table of the first benchmark items with the rows that contain them, and the number of such rows."""
    contaminated = rejected.filter(pl.col("reason").is_in(ITEM_REASONS)).select("row_id", "instruction", item="detail")
    count = contaminated.select(pl.len()).collect().item()
    if not count:
        return "No row contains a benchmark item."
    examples = contaminated.select("item", "row_id", "instruction").sort("item", "row_id").head(SAMPLE_ROWS).collect()
    lines = [
        f"| {escaped(item)} | {row} | {escaped(text[:ITEM_CHARACTERS])} |" for item, row, text in examples.iter_rows()
    ]
    return "\n".join([f"{count} in all.\n", "| item: share found | row | instruction |", "|---|---|---|", *lines])


def sample(table: pl.LazyFrame, columns: Sequence[str]) -> str:
    """Return escaped sample rows, one per reason if the table has reasons."""
    rows = table.select(columns)
    if "reason" in columns:
        rows = rows.unique("reason", keep="first", maintain_order=True)
    return escaped_sample(rows.head(SAMPLE_ROWS).collect().iter_rows(named=True))
