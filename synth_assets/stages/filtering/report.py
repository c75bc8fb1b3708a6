"""What the metadata of the filtered tables show: who was rejected why, a sample, a figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.reporting.escaping import escaped, escaped_sample
from synth_assets.reporting.figures import filtering_stats
from synth_assets.stages.filtering.decisions import CONTAMINATED
from synth_assets.stages.filtering.preferences import PREFIX
from synth_assets.stages.filtering.rules import RULES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_ROWS = 10
ITEM_CHARACTERS = 100  # of each cell of the table of benchmark items


def stats_figure(kept: pl.LazyFrame, rejected: pl.LazyFrame) -> "Figure":
    """The figure filtering_stats of the rows kept, which have scores, and those rejected, which have reasons."""
    scores = kept.select("score").collect()["score"].to_list()
    reasons = dict(rejected.group_by("reason").len().collect().iter_rows())
    return filtering_stats({"kept": len(scores), **reasons}, scores)


def reasons_table(reasons: Mapping[str, int], judged: int) -> str:
    """Rows by reason, with the family of its rule and its share of the rows judged."""
    family = {rule.reason: rule.family for rule in RULES}
    rows = [
        f"| {reason} | {family.get(reason.removeprefix(PREFIX), 'duplicates and benchmarks')} | {count} "
        f"| {count / judged:.2%} |"
        for reason, count in reasons.items()
    ]
    return "\n".join(["| reason | family | rows | share |", "|---|---|---:|---:|", *rows])


def items_found(rejected: pl.LazyFrame) -> str:
    """A table of benchmark items and the rows that repeat them; the first ones, and how many there are."""
    found = rejected.filter(reason=CONTAMINATED).select("row_id", "instruction", item="detail")
    rows = found.select(pl.len()).collect().item()
    if not rows:
        return "No row repeats a benchmark item."
    shown = found.select("item", "row_id", "instruction").sort("item", "row_id").head(SAMPLE_ROWS).collect()
    lines = [
        f"| {escaped(item)} | {row} | {escaped(text[:ITEM_CHARACTERS])} |" for item, row, text in shown.iter_rows()
    ]
    return "\n".join([f"{rows} in all.\n", "| item: share found | row | instruction |", "|---|---|---|", *lines])


def sample(table: pl.LazyFrame, columns: Sequence[str]) -> str:
    """Escaped rows, of rejected ones a row of each reason first."""
    rows = table.select(columns)
    if "reason" in columns:
        rows = rows.unique("reason", keep="first", maintain_order=True)
    return escaped_sample(rows.head(SAMPLE_ROWS).collect().iter_rows(named=True))
