"""Paired tests of two models on the same items, and Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from synth_assets.schemas.records import PairedTest
from synth_assets.stats.intervals import CONFIDENCE, _resampled_means


@dataclass(frozen=True)
class Discordance:
    """Two models right or wrong on the same `n` items.

    `difference` is the second's accuracy minus the first's; `p_value` the exact two-sided McNemar test.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    p_value: float


@dataclass(frozen=True)
class NonInferiority:
    """Whether the second's mean is no more than a margin below the first's.

    "held": the whole interval lies above -margin; "lost": the difference is -margin or worse and the interval leaves 0
    out; "not shown": what lies between, which more items could settle.
    """

    n: int
    difference: float
    low: float
    high: float
    verdict: Literal["held", "not shown", "lost"]


@dataclass(frozen=True)
class BootstrapDifference:
    """Second minus first: mean difference of scores, its percentile interval, two-sided p against 0."""

    difference: float
    low: float
    high: float
    p_value: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Discordance:
    """Exact two-sided McNemar test of two models on the same items (McNemar 1947; binomial, not chi-squared).

    Raises:
        ValueError: no items, or the lengths differ.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"paired outcomes need equal lengths of at least 1, not {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    difference = (only_second - only_first) / len(first)
    return Discordance(len(first), only_first, only_second, difference, mcnemar_p(only_first, only_second))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Probability under a fair coin of a split at least as uneven; 1 where nothing is discordant."""
    discordant = only_first + only_second
    fewer = min(only_first, only_second)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**discordant)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], confidence: float = CONFIDENCE
) -> BootstrapDifference:
    """Bootstrap of the mean paired difference, drawing whole clusters (Efron & Tibshirani 1993); deterministic.

    The p-value counts draws on the far side of 0, with one added so that it is never 0.

    Raises:
        ValueError: no items, or the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"paired scores need equal lengths, not {len(first)} and {len(second)}")
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    means = np.concatenate(list(_resampled_means(differences, clusters)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    far_side = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, 2 * far_side / (1 + len(means)))
    return BootstrapDifference(float(differences.mean()), float(low), float(high), p_value)


def non_inferiority(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], margin: float
) -> NonInferiority:
    """Second against first on the same items, by the interval of their difference (CONSORT, Piaggio et al. 2012).

    Raises:
        ValueError: no items, the lengths differ, or the margin is not within (0, 1].
    """
    if not 0 < margin <= 1:
        raise ValueError(f"a margin lies within (0, 1], not {margin}")
    found = paired_bootstrap(first, second, clusters)
    lost = found.difference <= -margin and found.high < 0
    verdict = "held" if found.low > -margin else "lost" if lost else "not shown"
    return NonInferiority(len(first), found.difference, found.low, found.high, verdict)


def paired_test(
    models: tuple[str, str],
    measured: tuple[str, str, str],
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[str],
) -> PairedTest:
    """Two models' scores of the same items: exact McNemar where all are 0 or 1, else a paired bootstrap by cluster.

    Args:
        models: their names, the one that is compared against first.
        measured: suite, split and metric.
        first: the first model's scores, 0..1.
        second: the second's, of the same items.
        clusters: of the items.

    Raises:
        ValueError: no items, or the lengths differ.
    """
    where = dict(zip(("first", "second", "suite", "split", "metric"), (*models, *measured), strict=True))
    if {*first, *second} <= {0.0, 1.0}:
        return PairedTest(**where, **asdict(mcnemar([a == 1.0 for a in first], [b == 1.0 for b in second])))
    drawn = paired_bootstrap(first, second, clusters)
    return PairedTest(
        **where,
        n=len(first),
        only_first=sum(a > b for a, b in zip(first, second, strict=True)),
        only_second=sum(a < b for a, b in zip(first, second, strict=True)),
        difference=drawn.difference,
        p_value=drawn.p_value,
        test="paired bootstrap by cluster",
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the given order that keep the chance of any false finding (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
