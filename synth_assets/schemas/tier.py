"""A row of the hardware table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Tier:
    """A row of the hardware table; see resources/hardware.py."""

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
    capability: tuple[int, int] = (0, 0)  # CUDA compute capability wanted
    bandwidth_gb_s: float = 0.0  # of the device's memory, 1e9 bytes a second; 0: measured where it is needed
    grouping: Literal["length", "packing"] = "length"
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # spec -> field -> value, over the model's
    suites: tuple[str, ...] = ()  # empty: those of the base's size
    model_steps: int = 1  # steps that run a model beside each other
    threads: int = 1  # of torch in each of these steps, on a CPU
    tested: str = ""  # where and when it ran; empty: nobody ran it
