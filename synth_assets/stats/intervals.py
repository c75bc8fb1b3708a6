"""Point estimates with confidence intervals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000  # the ends vary by about 0.1 standard errors (Davison & Hinkley 1997, section 5.2.3)
BOOTSTRAP_SEED = 42
CHUNK_DRAWS = 4_000_000  # cluster indices per chunk: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval; `method` as in `Metric.interval`, such as "wilson 0.95"."""

    value: float
    n: int
    low: float
    high: float
    method: str


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Compute the score interval of a proportion (Wilson 1927), without continuity correction.

    Raises:
        ValueError: n is below 1, or successes are not in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Compute Student's interval of a mean (Student 1908), such as of one training under several seeds.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        raise ValueError(f"the interval of a mean needs at least two values, got {n}")
    numbers = np.asarray(values, dtype=np.float64)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(numbers.std(ddof=1)) / math.sqrt(n)
    return float(numbers.mean()) - half, float(numbers.mean()) + half


def bootstrap_interval(
    scores: Sequence[float], clusters: Sequence[str], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Compute the percentile interval of the mean score, resampling whole clusters; deterministic.

    Args:
        scores: one per item.
        clusters: the same length; items of a cluster are resampled together.
        confidence: in (0, 1).

    Raises:
        ValueError: no scores, or the lengths differ.
    """
    means = np.concatenate(list(_resampled_means(np.asarray(scores, dtype=np.float64), clusters)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def estimate(scores: Sequence[float | None], clusters: Sequence[str]) -> Estimate:
    """Estimate the mean score, with a Wilson interval if all scores are 0 or 1, else a cluster bootstrap.

    A score of None is excluded from n.

    Raises:
        ValueError: no score is left, the lengths differ, or a score is not in 0..1.
    """
    scored = [(score, cluster) for score, cluster in zip(scores, clusters, strict=True) if score is not None]
    if not scored:
        raise ValueError("no item has a score")
    values = [score for score, _ in scored]
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"a score must be in 0..1, got {value}")
    n, total = len(values), math.fsum(values)
    if all(value in (0, 1) for value in values):
        low, high = wilson_interval(round(total), n)
        return Estimate(total / n, n, low, high, f"wilson {CONFIDENCE}")
    low, high = bootstrap_interval(values, [cluster for _, cluster in scored])
    return Estimate(total / n, n, low, high, f"bootstrap {CONFIDENCE}")


def _two_sided_z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _resampled_means(scores: np.ndarray, clusters: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield RESAMPLES means of `scores` (n,) in chunks, each over clusters drawn with replacement."""
    if len(scores) != len(clusters) or not len(scores):
        raise ValueError(f"expected one cluster per score and at least 1 score, got {len(clusters)} for {len(scores)}")
    _, membership = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums, counts = np.bincount(membership, weights=scores), np.bincount(membership)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    rows = max(1, CHUNK_DRAWS // len(sums))
    for start in range(0, RESAMPLES, rows):
        indices = generator.integers(0, len(sums), size=(min(rows, RESAMPLES - start), len(sums)))
        yield sums[indices].sum(axis=1) / counts[indices].sum(axis=1)
