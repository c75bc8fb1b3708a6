"""Paired tests of two models on the same items, and Holm's correction."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from synth_assets.schemas.records import PairedTest
from synth_assets.stats.intervals import CONFIDENCE, _resampled_means


@dataclass(frozen=True)
class Discordance:
    """Outcomes of two models that are right or wrong on the same `n` items.

    `difference` is the accuracy of the second minus that of the first; `p_value` is of the exact two-sided McNemar
    test.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    p_value: float


@dataclass(frozen=True)
class NonInferiority:
    """Result of a non-inferiority test: whether the second mean is at most a margin below the first.

    "held": the whole interval is above -margin. "lost": the difference is -margin or less and the interval excludes 0.
    "not shown": inconclusive; more items could decide.
    """

    n: int
    difference: float
    low: float
    high: float
    verdict: Literal["held", "not shown", "lost"]


@dataclass(frozen=True)
class BootstrapDifference:
    """Mean score difference (second minus first), its percentile interval, and the two-sided p-value against 0."""

    difference: float
    low: float
    high: float
    p_value: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Discordance:
    """Run the exact two-sided McNemar test on two models' outcomes (McNemar 1947; binomial, not chi-squared).

    Raises:
        ValueError: no items, or the lengths differ.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"paired outcomes need equal lengths of at least 1, got {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    difference = (only_second - only_first) / len(first)
    return Discordance(len(first), only_first, only_second, difference, mcnemar_p(only_first, only_second))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value for these discordant counts; 1 if both are 0."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], confidence: float = CONFIDENCE
) -> BootstrapDifference:
    """Bootstrap the mean paired difference, resampling whole clusters (Efron & Tibshirani 1993); deterministic.

    The p-value counts the means on the far side of 0, plus one, so that it is never 0.

    Raises:
        ValueError: no items, or the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"paired scores need equal lengths, got {len(first)} and {len(second)}")
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
    """Test the second against the first by the interval of their difference (CONSORT, Piaggio et al. 2012).

    Raises:
        ValueError: no items, the lengths differ, or the margin is not in (0, 1].
    """
    if not 0 < margin <= 1:
        raise ValueError(f"margin must be in (0, 1], got {margin}")
    bootstrap = paired_bootstrap(first, second, clusters)
    lost = bootstrap.difference <= -margin and bootstrap.high < 0
    verdict = "held" if bootstrap.low > -margin else "lost" if lost else "not shown"
    return NonInferiority(len(first), bootstrap.difference, bootstrap.low, bootstrap.high, verdict)


def paired_test(
    models: tuple[str, str],
    key: tuple[str, str, str],
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[str],
) -> PairedTest:
    """Compare two models on the same items: exact McNemar if all scores are 0 or 1, else a paired cluster bootstrap.

    Args:
        models: names of the reference model and the other.
        key: suite, split and metric.
        first: scores of the reference model, 0..1.
        second: scores of the other, on the same items.
        clusters: cluster of each item.

    Raises:
        ValueError: no items, or the lengths differ.
    """
    identity = dict(zip(("first", "second", "suite", "split", "metric"), (*models, *key), strict=True))
    if {*first, *second} <= {0.0, 1.0}:
        return PairedTest(**identity, **asdict(mcnemar([a == 1.0 for a in first], [b == 1.0 for b in second])))
    bootstrap = paired_bootstrap(first, second, clusters)
    return PairedTest(
        **identity,
        n=len(first),
        only_first=sum(a > b for a, b in zip(first, second, strict=True)),
        only_second=sum(a < b for a, b in zip(first, second, strict=True)),
        difference=bootstrap.difference,
        p_value=bootstrap.p_value,
        test="paired bootstrap by cluster",
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values to control the family-wise error rate (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
