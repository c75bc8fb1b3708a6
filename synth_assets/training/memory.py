"""Out-of-memory errors in training: detect them and shrink the batch."""

import gc
from dataclasses import replace
from typing import TypeVar

from synth_assets.training.errors import TrainingError
from synth_assets.training.specs import OptimizationSpec

S = TypeVar("S", bound=OptimizationSpec)
CPU_ALLOCATOR = "can't allocate memory"  # torch's DefaultCPUAllocator raises a plain RuntimeError with this text
ADVICE = "use shorter rows, quantise the base (int8 or nf4), or select a tier with more memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a failed allocation in device or host memory."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error)


def shrink_batch(spec: S) -> S:
    """Halve the batch and double the accumulation, so that each step sees the same rows.

    An odd batch shrinks to its largest proper divisor. A token budget is halved.

    Raises:
        TrainingError: the batch is already one row.
    """
    batch, accumulation = spec.batch_size or 1, spec.accumulation or 1
    if spec.batch_tokens and batch > 1:
        return replace(
            spec, batch_tokens=max(1, spec.batch_tokens // 2), batch_size=batch // 2, accumulation=2 * accumulation
        )
    if batch == 1:
        raise TrainingError(f"out of memory with a batch of one row: {ADVICE}")
    divisor = max(rows for rows in range(1, batch // 2 + 1) if batch % rows == 0)
    return replace(spec, batch_size=divisor, accumulation=accumulation * (batch // divisor))


def free_memory() -> None:
    """Release memory after a failed attempt."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
