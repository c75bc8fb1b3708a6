"""Running out of memory: how it is recognised, and what is tried instead."""

import gc
from dataclasses import replace
from typing import TypeVar

from synth_assets.training.errors import TrainingError
from synth_assets.training.specs import OptimizationSpec

S = TypeVar("S", bound=OptimizationSpec)
CPU_ALLOCATOR = "can't allocate memory"  # of torch's DefaultCPUAllocator, which raises a plain RuntimeError
ADVICE = "take shorter rows, quantise the base (int8 or nf4), or choose a tier with more memory"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a card or in the host's memory."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error)


def smaller(spec: S) -> S:
    """The same rows for each step in smaller forward passes: half the batch and twice the accumulation.

    A batch of an odd number of rows shrinks to its largest divisor below it; a token budget is halved.

    Raises:
        TrainingError: a forward pass holds one row already.
    """
    batch, accumulation = spec.batch_size or 1, spec.accumulation or 1
    if spec.batch_tokens and batch > 1:
        return replace(
            spec, batch_tokens=max(1, spec.batch_tokens // 2), batch_size=batch // 2, accumulation=2 * accumulation
        )
    if batch == 1:
        raise TrainingError(f"out of memory with one row in a forward pass: {ADVICE}")
    fewer = max(rows for rows in range(1, batch // 2 + 1) if batch % rows == 0)
    return replace(spec, batch_size=fewer, accumulation=accumulation * (batch // fewer))


def release() -> None:
    """Give back what a failed attempt still holds."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
