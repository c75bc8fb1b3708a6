"""Compute the memory-bandwidth bound on generation throughput (roofline)."""

import functools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synth_assets.llm.weight_files import count_parameters
from synth_assets.schemas.tier import Tier

BYTES_PER_PARAMETER = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.5}
COPY_BYTES = 2**27  # larger than the CPU caches
COPIES = 3


@dataclass(frozen=True)
class Roofline:
    """Upper bound on a batch's tokens per second, given that each forward pass reads every weight once.

    tokens_per_s = rows x bandwidth / weight bytes: the memory roof of Williams et al. 2009 (10.1145/1498765.1498785).
    It ignores the key-value cache, which lowers the bound, and arithmetic, which limits large batches first. It is
    derived from the parameter count and the tier's precision, not from device counters.
    """

    rows: int
    weight_bytes: float
    bandwidth_gb_s: float
    bandwidth_kind: Literal["measured", "data sheet"]

    @property
    def tokens_per_s(self) -> float:
        """Return the bound in tokens per second."""
        return self.rows * self.bandwidth_gb_s * 1e9 / self.weight_bytes

    def facts(self) -> dict[str, Any]:
        """Return the bound and its inputs as JSON values."""
        return {"tokens_per_s_at_most": round(self.tokens_per_s, 1), **asdict(self), "kind": "derived"}


def roofline(folder: Path, tier: Tier, rows: int) -> Roofline:
    """Compute the bound for a safetensors model on a tier, with `rows` texts per forward pass.

    The bandwidth is the tier's data-sheet value. Tiers without one, such as cpu, are measured by copying memory.
    """
    precision = tier.dtype if tier.quantisation == "none" else tier.quantisation
    weight_bytes = count_parameters(folder) * BYTES_PER_PARAMETER[precision]
    if tier.bandwidth_gb_s:
        return Roofline(rows, weight_bytes, tier.bandwidth_gb_s, "data sheet")
    return Roofline(rows, weight_bytes, round(copy_bandwidth_gb_s(), 1), "measured")


@functools.lru_cache(maxsize=1)
def copy_bandwidth_gb_s() -> float:
    """Measure one core's memory bandwidth in 1e9 bytes read and written per second: the best of COPIES array copies."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(COPIES):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2 * COPY_BYTES / best / 1e9
