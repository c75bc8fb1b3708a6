"""Compute Gumbel noise for sampling from a row's seed, the step and the token.

No random generator with state is involved, so a row gets the same noise alone or in a batch, in a first or resumed run.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195): the increment and the two multipliers, as int64.
INCREMENT = 0x9E3779B97F4A7C15 - 2**64
FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9 - 2**64
SECOND_MULTIPLIER = 0x94D049BB133111EB - 2**64


def gumbel_noise(seeds: "torch.Tensor", step: int, vocabulary: int) -> "torch.Tensor":
    """Compute standard Gumbel noise for sampling one token per row.

    The argmax of (log-probability + noise) is a sample from the distribution (Maddison et al. 2014, arXiv 1411.0030).

    Args:
        seeds: (rows,) int64, one random stream per row.
        step: position of the token in its row.
        vocabulary: size of the vocabulary.

    Returns:
        (rows, vocabulary) float64 on the device of `seeds`, all finite. The underlying integers are identical on all
        devices; the two logarithms may differ by rounding.
    """
    import torch

    return noise_of_tokens(seeds, step, torch.arange(vocabulary, device=seeds.device))


def noise_of_tokens(seeds: "torch.Tensor", step: int, tokens: "torch.Tensor") -> "torch.Tensor":
    """Return the noise of selected tokens: ids of shape (count,) for all rows or (rows, count) give (rows, count)."""
    streams = _mix(_mix(seeds + INCREMENT) + step)
    return _gumbel(_mix(streams[:, None] + tokens * INCREMENT))


def _gumbel(bits: "torch.Tensor") -> "torch.Tensor":
    """Convert 64 random bits each to standard Gumbel noise in float64.

    In float32 one of 2**25 uniform numbers rounds to 1, which makes its noise infinite: with a vocabulary of 49,152
    one token in a thousand would be random.
    """
    uniform = (_shifted(bits, 12).double() + 0.5) * 2.0**-52  # strictly between 0 and 1: both logarithms are finite
    return uniform.log_().neg_().log_().neg_()


def seed_tensor(seeds: Sequence[int], device: "torch.device | str") -> "torch.Tensor":
    """Convert Python integers of any size to a (rows,) int64 tensor, modulo 2**64."""
    import torch

    return torch.tensor([(seed + 2**63) % 2**64 - 2**63 for seed in seeds], dtype=torch.int64, device=device)


def _mix(state: "torch.Tensor") -> "torch.Tensor":
    """Apply SplitMix64's output function; int64 arithmetic wraps like unsigned arithmetic."""
    state = (state ^ _shifted(state, 30)) * FIRST_MULTIPLIER
    state = (state ^ _shifted(state, 27)) * SECOND_MULTIPLIER
    return state ^ _shifted(state, 31)


def _shifted(state: "torch.Tensor", bits: int) -> "torch.Tensor":
    """Shift right logically; torch's operator is an arithmetic shift."""
    return (state >> bits) & (2 ** (64 - bits) - 1)
