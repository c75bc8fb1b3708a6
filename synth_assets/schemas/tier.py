"""Hardware tier record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Tier:
    """A row of the hardware table in resources/hardware.py."""

    device: Literal["cpu", "cuda"]
    memory_gb: float
    dtype: Literal["float32", "float16", "bfloat16"]
    quantisation: Literal["none", "int8", "nf4"]
    attention: Literal["sdpa", "flash_attention_2"]
    engine: Literal["transformers", "vllm"]
    teacher: str
    base: str
    reward: str
    batch_size: int
    accumulation: int
    samples: int
    min_rows: int
    usd_per_hour: float
    capability: tuple[int, int] = (0, 0)  # minimum CUDA compute capability
    bandwidth_gb_s: float = 0.0  # memory bandwidth in 1e9 bytes per second; 0: measured on demand
    grouping: Literal["length", "packing"] = "length"
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # spec -> field -> value
    suites: tuple[str, ...] = ()  # empty: the suites of the base model's size class
    model_steps: int = 1  # steps that run a model at the same time
    threads: int = 1  # torch threads of each of these steps on a CPU
    tested: str = ""  # where and when it was tested; empty: untested


CPU_FLOAT32 = Tier(
    device="cpu",
    memory_gb=0,
    dtype="float32",
    quantisation="none",
    attention="sdpa",
    engine="transformers",
    teacher="",
    base="",
    reward="",
    batch_size=1,
    accumulation=1,
    samples=0,
    min_rows=0,
    usd_per_hour=0.0,
)
"""Load and run models in float32 on a CPU; without models of its own."""
