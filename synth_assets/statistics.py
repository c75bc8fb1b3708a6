"""Numbers with their uncertainty: intervals, paired tests, corrections, and what a sample can show at all."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from synth_assets.records import PairedTest

CONFIDENCE = 0.95
RESAMPLES = 10_000  # percentile ends then move by about 0.1 standard errors (Davison & Hinkley 1997, section 5.2.3)
BOOTSTRAP_SEED = 42
CHUNK_DRAWS = 4_000_000  # cluster indices drawn at a time: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; `method` as in `Metric.interval`, such as "wilson 0.95"."""

    value: float
    n: int
    low: float
    high: float
    method: str


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


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927), without continuity correction.

    Raises:
        ValueError: n is below 1, or successes are not within 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    z = _two_sided_z(confidence)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's interval of a mean, as of the same training under several seeds (Student 1908).

    Raises:
        ValueError: fewer than two values: their spread is unknown.
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        raise ValueError(f"an interval of a mean needs at least two values, not {n}")
    numbers = np.asarray(values, dtype=np.float64)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(numbers.std(ddof=1)) / math.sqrt(n)
    return float(numbers.mean()) - half, float(numbers.mean()) + half


def bootstrap_interval(
    scores: Sequence[float], clusters: Sequence[str], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval of the mean score when whole clusters are drawn again; deterministic.

    Args:
        scores: one per item.
        clusters: the same length; items that share a fact share a cluster and are drawn together.
        confidence: within 0..1.

    Raises:
        ValueError: no scores, or the lengths differ.
    """
    means = np.concatenate(list(_resampled_means(np.asarray(scores, dtype=np.float64), clusters)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def estimate(scores: Sequence[float | None], clusters: Sequence[str]) -> Estimate:
    """The mean of the scores that apply, with a Wilson interval if all are 0 or 1, else a cluster bootstrap.

    A score of None leaves the denominator.

    Raises:
        ValueError: no score applies, the lengths differ, or a score is not within 0..1.
    """
    applying = [(score, cluster) for score, cluster in zip(scores, clusters, strict=True) if score is not None]
    if not applying:
        raise ValueError("no item has a score: a mean of nothing is not a measurement")
    values = [score for score, _ in applying]
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"a score lies within 0..1, not {value}")
    n, total = len(values), math.fsum(values)
    if all(value in (0, 1) for value in values):
        low, high = wilson_interval(round(total), n)
        return Estimate(total / n, n, low, high, f"wilson {CONFIDENCE}")
    low, high = bootstrap_interval(values, [cluster for _, cluster in applying])
    return Estimate(total / n, n, low, high, f"bootstrap {CONFIDENCE}")


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


def minimum_detectable_effect(n: int, discordant_rate: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference in accuracy that a paired test on `n` items finds with this power.

    Solves n d^2 = (z_alpha sqrt(r) + z_power sqrt(r - d^2))^2 for d (Connor 1987, Biometrics 43:207), where r is
    the share of items on which exactly one of the two models is right; d cannot exceed r.

    Returns:
        The difference, 0..1; infinity where even a difference of r would be missed.

    Raises:
        ValueError: n is below 1, or the rate is not within (0, 1].
    """
    if n < 1 or not 0 < discordant_rate <= 1:
        raise ValueError(f"needs n >= 1 and a discordant rate within (0, 1], not {n} and {discordant_rate}")
    z_alpha, z_power = _two_sided_z(1 - alpha), NormalDist().inv_cdf(power)

    def surplus(effect: float) -> float:
        noise = z_alpha * math.sqrt(discordant_rate) + z_power * math.sqrt(max(discordant_rate - effect**2, 0.0))
        return math.sqrt(n) * effect - noise

    low, high = 0.0, discordant_rate
    if surplus(high) < 0:
        return math.inf
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if surplus(middle) >= 0 else (middle, high)
    return high


def minimum_detectable_difference(differences: Sequence[float], *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The same for scores of any kind, from the paired differences that were seen: (z_alpha + z_power) s / sqrt(n).

    Raises:
        ValueError: fewer than two differences.
    """
    if len(differences) < 2:
        raise ValueError(f"a spread needs at least two differences, not {len(differences)}")
    spread = float(np.std(np.asarray(differences, dtype=np.float64), ddof=1))
    return (_two_sided_z(1 - alpha) + NormalDist().inv_cdf(power)) * spread / math.sqrt(len(differences))


def _two_sided_z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _resampled_means(scores: np.ndarray, clusters: Sequence[str]) -> Iterator[np.ndarray]:
    """Chunks of RESAMPLES means of `scores` (n,), each over clusters drawn with replacement."""
    if len(scores) != len(clusters) or not len(scores):
        raise ValueError(f"needs one cluster for each of at least 1 score, not {len(clusters)} for {len(scores)}")
    _, membership = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums, counts = np.bincount(membership, weights=scores), np.bincount(membership)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    rows = max(1, CHUNK_DRAWS // len(sums))
    for start in range(0, RESAMPLES, rows):
        drawn = generator.integers(0, len(sums), size=(min(rows, RESAMPLES - start), len(sums)))
        yield sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
