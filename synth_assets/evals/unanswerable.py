"""Items that a model cannot take: counts, shares and the threshold above which results are inconclusive."""

from collections.abc import Sequence

import polars as pl

from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.records import UnanswerableItems
from synth_assets.schemas.tables import UNANSWERABLE

MAX_LEFT_OUT_SHARE = 0.05
"""Share of the items of a suite. Above it, the excluded items could hide a loss as large as a guard's margin."""
REASONS = {"context_exceeded": "longer than its context", "template_refused": "refused by its chat template"}

_KEYS = ["model", "suite", "split"]


def answered(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of ITEM_SCORES for items that the model took, including metrics that do not apply."""
    unanswerable = pl.col("finish_reason").is_in(UNANSWERABLE).any().over("model", "suite", "split", "item_id")
    return scores.filter(~unanswerable.fill_null(value=False))


def count_unanswerable(scores: pl.DataFrame) -> list[UnanswerableItems]:
    """Count the items that models cannot take, in the order of the table."""
    asked = scores.group_by(_KEYS, maintain_order=True).agg(pl.col("item_id").n_unique().alias("asked"))
    left_out = (
        scores.filter(pl.col("finish_reason").is_in(UNANSWERABLE))
        .group_by([*_KEYS, "finish_reason"], maintain_order=True)
        .agg(pl.col("item_id").n_unique().alias("items"))
        .rename({"finish_reason": "reason"})
    )
    rows = left_out.join(asked, on=_KEYS, maintain_order="left").iter_rows(named=True)
    return [UnanswerableItems(**row) for row in rows]


def left_out_share(left_out: int, compared: int) -> float:
    """Return the share of excluded items among excluded and compared ones."""
    return left_out / (left_out + compared) if left_out else 0.0


def unanswerable_text(counted: UnanswerableItems) -> str:
    """Return the count as a line of text."""
    reason = REASONS.get(counted.reason, counted.reason)
    items = f"{counted.items} of {counted.asked} {counted.split} items of {counted.suite}"
    return f"{display_name(counted.model)}: {items} are {reason} and excluded"


def shares(counted: Sequence[UnanswerableItems]) -> dict[tuple[str, str, str], float]:
    """Return (model, suite, split) -> share of items that the model cannot take, for any reason."""
    by_suite: dict[tuple[str, str, str], float] = {}
    for count in counted:
        key = count.model, count.suite, count.split
        by_suite[key] = by_suite.get(key, 0.0) + count.items / count.asked
    return by_suite
