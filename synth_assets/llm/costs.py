"""Measure and predict the cost of training: parameters, peak memory, time and price."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from synth_assets.schemas.tier import Tier

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

CHECKPOINT_ACTIVATIONS_BELOW_GB = 40.0  # of device memory
ADAMW_STATES = 2  # first and second moment, float32
ACTIVATION_BYTES_PER_HIDDEN = 34  # bytes per hidden unit, layer and token at 16 bits, without the attention matrix
"""Korthikanti et al. 2022 (arXiv 2205.05198), eq. 2 without its last term, which fused attention recomputes."""

HOST_RESET, HOST_STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def parameter_counts(model: "nn.Module") -> tuple[int, int]:
    """Return (trainable, total) parameters. Tied weights count once; 4-bit weights count by their unpacked shape."""
    sizes = [(p.requires_grad, _true_size(p)) for p in model.parameters()]
    return sum(n for trained, n in sizes if trained), sum(n for _, n in sizes)


def cost_usd(seconds: float, usd_per_hour: float) -> float:
    """Return the price of `seconds` at an hourly rate."""
    return seconds / 3600 * usd_per_hour


def reset_peak_memory() -> None:
    """Reset the peak memory statistics of the CUDA device, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def reset_host_peak() -> None:
    """Reset the peak resident memory of this process, where the system supports it (Linux, proc(5))."""
    if HOST_RESET.exists():
        HOST_RESET.write_text("5")


def host_peak_bytes() -> int:
    """Return the peak resident memory of this process since `reset_host_peak`; 0 if the system does not report it."""
    if not HOST_STATUS.exists():
        return 0
    match = re.search(r"^VmHWM:\s+(\d+) kB", HOST_STATUS.read_text("utf-8"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def predicted_cost(tokens: float, tokens_per_s: float | None, tier: Tier) -> dict[str, float]:
    """Return the tokens of a training and, if a rate is given, its seconds and US dollars, without validation."""
    if not tokens_per_s:
        return {"tokens": tokens}
    seconds = tokens / tokens_per_s
    return {"tokens": tokens, "seconds": seconds, "cost_usd": cost_usd(seconds, tier.usd_per_hour)}


def peak_memory(model: "PeftModel", tokens_in_batch: int) -> tuple[int, Literal["measured", "derived"]]:
    """Return the peak memory in bytes and whether it was measured.

    On CUDA it is the allocator's measured peak. On a CPU it is derived: weights, gradients, AdamW states, activations.
    """
    import torch

    if next(model.parameters()).is_cuda:
        return torch.cuda.max_memory_allocated(), "measured"
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * (p.element_size() + 4 * ADAMW_STATES) for p in model.parameters() if p.requires_grad)
    config = model.config.get_text_config()
    width = next(p.element_size() for p in model.parameters() if p.is_floating_point())
    by_layer = ACTIVATION_BYTES_PER_HIDDEN * width // 2 * config.hidden_size * config.num_hidden_layers
    logits = 4 * config.vocab_size
    return weights + trained + tokens_in_batch * (by_layer + logits), "derived"


def _true_size(parameter: "nn.Parameter") -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)
