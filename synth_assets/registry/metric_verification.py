"""The gate in front of the registry: a metric enters only where its items give it."""

import math

import polars as pl

from synth_assets.schemas.records import Metric
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.stats.intervals import estimate

TOLERANCE = 1e-9  # rounding of a mean summed in another order


def verify_metric(metric: Metric, items: pl.DataFrame, items_hash: str) -> None:
    """Recompute a metric from the per-item table; ValueError naming what the items do not give.

    Args:
        metric: the claim.
        items: ITEM_SCORES rows of all models; a null score is outside the denominator, and counted where its
            `finish_reason` says that the model cannot take the item.
        items_hash: their content hash, which the metric must carry.
    """
    name = f"{metric.model}/{metric.suite}/{metric.split}/{metric.metric}"
    if metric.kind != "measured":
        raise ValueError(f"{name} is {metric.kind}: only measured numbers enter the registry")
    if metric.items_sha256 != items_hash:
        raise ValueError(f"{name} was measured on items {metric.items_sha256 or 'of no hash'}, these are {items_hash}")
    mine = items.filter(
        (pl.col("model") == metric.model)
        & (pl.col("suite") == metric.suite)
        & (pl.col("split") == metric.split)
        & (pl.col("metric") == metric.metric)
    )
    try:
        found = estimate(mine["score"].to_list(), mine["cluster"].to_list())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if (metric.n, metric.interval) != (found.n, found.method):
        raise ValueError(
            f"{name}: claimed n {metric.n} and interval {metric.interval!r}, "
            f"the items give {found.n} and {found.method!r}"
        )
    unanswerable = _unanswerable(mine)
    if metric.unanswerable != unanswerable:
        raise ValueError(f"{name}: claimed {metric.unanswerable} unanswerable items, the items give {unanswerable}")
    claims = (("value", found.value), ("ci_low", found.low), ("ci_high", found.high))
    for field, value in claims:
        claimed = getattr(metric, field)
        if not math.isclose(claimed, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise ValueError(f"{name}: {field} is {claimed}, the items give {value}")


def _unanswerable(items: pl.DataFrame) -> int:
    """Return how many items were left out; ValueError where one of them has a score."""
    left_out = items.filter(pl.col("finish_reason").is_in(UNANSWERABLE))
    if scored := left_out["score"].count():
        raise ValueError(f"{scored} unanswerable items have a score, such as {left_out['item_id'][0]}")
    return left_out.height
