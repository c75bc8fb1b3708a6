"""Point estimates with confidence intervals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

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
