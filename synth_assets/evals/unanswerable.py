"""Items that a model cannot take: how many there are, and when they are too many for a suite to show anything."""

from collections.abc import Sequence

import polars as pl

from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.records import UnanswerableItems
from synth_assets.schemas.tables import UNANSWERABLE

MAX_LEFT_OUT_SHARE = 0.05
"""Of a suite's items. Beyond it the items that are left out could hide a loss as large as the margin of a guard."""
REASONS = {"context_exceeded": "longer than its context", "template_refused": "refused by its chat template"}

_KEYS = ["model", "suite", "split"]


def answered(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of ITEM_SCORES of items that the model took, whether or not the metric applies."""
    unanswerable = pl.col("finish_reason").is_in(UNANSWERABLE).any().over("model", "suite", "split", "item_id")
    return scores.filter(~unanswerable.fill_null(value=False))


def count_unanswerable(scores: pl.DataFrame) -> list[UnanswerableItems]:
    """Return the counts of items that models cannot take, in the order of the table; none where each item was taken."""
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
    """Return the share of items that are left out, of those and the ones that are compared."""
    return left_out / (left_out + compared) if left_out else 0.0


def unanswerable_text(counted: UnanswerableItems) -> str:
    """Return one line for people."""
    why = REASONS.get(counted.reason, counted.reason)
    which = f"{counted.items} of {counted.asked} {counted.split} items of {counted.suite}"
    return f"{display_name(counted.model)}: {which} are {why} and left out"


def shares(counted: Sequence[UnanswerableItems]) -> dict[tuple[str, str, str], float]:
    """Return model, suite and split to the share of items that the model cannot take, for whatever reason."""
    by_suite: dict[tuple[str, str, str], float] = {}
    for one in counted:
        key = one.model, one.suite, one.split
        by_suite[key] = by_suite.get(key, 0.0) + one.items / one.asked
    return by_suite
