"""Verification of metrics against their per-item scores before they enter the registry."""

import math

import polars as pl

from synth_assets.schemas.records import Metric
from synth_assets.schemas.tables import UNANSWERABLE
from synth_assets.stats.intervals import estimate

TOLERANCE = 1e-9  # rounding differences of the summation order


def verify_metric(metric: Metric, items: pl.DataFrame, items_hash: str) -> None:
    """Recompute a metric from its items. Raise ValueError if a value differs.

    Args:
        metric: the metric to verify.
        items: ITEM_SCORES of all models. Null scores are excluded from n; those with a `finish_reason` of UNANSWERABLE
            are counted.
        items_hash: content hash of `items`, which the metric must carry.
    """
    name = f"{metric.model}/{metric.suite}/{metric.split}/{metric.metric}"
    if metric.kind != "measured":
        raise ValueError(f"{name} must be measured to enter the registry, got {metric.kind}")
    if metric.items_sha256 != items_hash:
        raise ValueError(f"{name}: expected the items hash {items_hash}, got {metric.items_sha256 or 'none'}")
    rows = items.filter(
        (pl.col("model") == metric.model)
        & (pl.col("suite") == metric.suite)
        & (pl.col("split") == metric.split)
        & (pl.col("metric") == metric.metric)
    )
    try:
        expected = estimate(rows["score"].to_list(), rows["cluster"].to_list())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if (metric.n, metric.interval) != (expected.n, expected.method):
        raise ValueError(
            f"{name}: expected n {expected.n} and interval {expected.method!r} from the items, "
            f"got n {metric.n} and interval {metric.interval!r}"
        )
    unanswerable = _unanswerable(rows)
    if metric.unanswerable != unanswerable:
        raise ValueError(f"{name}: expected {unanswerable} unanswerable items, got {metric.unanswerable}")
    fields = (("value", expected.value), ("ci_low", expected.low), ("ci_high", expected.high))
    for field, value in fields:
        actual = getattr(metric, field)
        if not math.isclose(actual, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise ValueError(f"{name}: expected {field} {value} from the items, got {actual}")


def _unanswerable(items: pl.DataFrame) -> int:
    """Count the unanswerable items. Raise ValueError if one of them has a score."""
    left_out = items.filter(pl.col("finish_reason").is_in(UNANSWERABLE))
    if scored := left_out["score"].count():
        raise ValueError(f"{scored} unanswerable items have a score, such as {left_out['item_id'][0]}")
    return left_out.height
