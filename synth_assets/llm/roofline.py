"""How fast memory alone lets a model write: the bound that tokens per second are compared with."""

import functools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synth_assets.llm.weight_files import parameters
from synth_assets.schemas.tier import Tier

BYTES_PER_PARAMETER = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.5}
COPIED_BYTES = 2**27  # beyond the caches of the cores at hand
COPIES = 3


@dataclass(frozen=True)
class Roofline:
    """The most tokens per second that a batch can have where each forward pass reads every weight once.

    tokens_per_s = rows x bandwidth / weight bytes: the memory roof of Williams et al. 2009 (10.1145/1498765.1498785).
    Left out are the key-value cache, which lowers it, and arithmetic, which limits large batches first. Derived from
    the number of parameters and the tier's precision; no counter of the device is read.
    """

    rows: int
    weight_bytes: float
    bandwidth_gb_s: float
    bandwidth_kind: Literal["measured", "data sheet"]

    @property
    def tokens_per_s(self) -> float:
        """The bound."""
        return self.rows * self.bandwidth_gb_s * 1e9 / self.weight_bytes

    def facts(self) -> dict[str, Any]:
        """All that the bound is derived from, as JSON values."""
        return {"tokens_per_s_at_most": round(self.tokens_per_s, 1), **asdict(self), "kind": "derived"}


def roofline(folder: Path, tier: Tier, rows: int) -> Roofline:
    """The bound for the model in a folder of safetensors on a tier's device, with `rows` texts in a forward pass.

    The bandwidth is the tier row's; measured by copying where the row has none, as that of the CPU.
    """
    precision = tier.dtype if tier.quantisation == "none" else tier.quantisation
    weight_bytes = parameters(folder) * BYTES_PER_PARAMETER[precision]
    if tier.bandwidth_gb_s:
        return Roofline(rows, weight_bytes, tier.bandwidth_gb_s, "data sheet")
    return Roofline(rows, weight_bytes, round(copy_bandwidth_gb_s(), 1), "measured")


@functools.lru_cache(maxsize=1)
def copy_bandwidth_gb_s() -> float:
    """What one core of this machine reads and writes in 1e9 bytes a second: the best of a few copies of an array."""
    source = np.ones(COPIED_BYTES, np.uint8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(COPIES):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2 * COPIED_BYTES / best / 1e9
