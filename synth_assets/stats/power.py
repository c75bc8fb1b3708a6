"""Minimum detectable effects of paired tests."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from synth_assets.stats.intervals import _two_sided_z


def minimum_detectable_effect(n: int, discordant_rate: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true accuracy difference that a paired test on `n` items detects with this power.

    Solves n d^2 = (z_alpha sqrt(r) + z_power sqrt(r - d^2))^2 for d (Connor 1987, Biometrics 43:207), where r is the
    share of items on which exactly one of the two models is right; d cannot exceed r.

    Returns:
        The difference, 0..1; infinity if the power is not reached even at a difference of r.

    Raises:
        ValueError: n is below 1, or the rate is not in (0, 1].
    """
    if n < 1 or not 0 < discordant_rate <= 1:
        raise ValueError(f"expected n >= 1 and a discordant rate in (0, 1], got {n} and {discordant_rate}")
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
    """Return the minimum detectable effect for scores of any kind: (z_alpha + z_power) s / sqrt(n).

    s is the standard deviation of the observed paired differences.

    Raises:
        ValueError: fewer than two differences.
    """
    if len(differences) < 2:
        raise ValueError(f"a standard deviation needs at least two differences, got {len(differences)}")
    spread = float(np.std(np.asarray(differences, dtype=np.float64), ddof=1))
    return (_two_sided_z(1 - alpha) + NormalDist().inv_cdf(power)) * spread / math.sqrt(len(differences))
