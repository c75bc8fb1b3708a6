"""Pre- and post-training validation: precision, steps, target modules, changed weights."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from synth_assets.schemas.tier import Tier
from synth_assets.training.errors import TrainingError
from synth_assets.training.schedules import phases_of, warmup_steps
from synth_assets.training.specs import LoraSpec, OptimizationSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


def batch_rows(spec: OptimizationSpec, tier: Tier) -> tuple[int, int]:
    """Return (rows per forward pass, forward passes per step) of the spec, taking missing values from the tier."""
    return spec.batch_size or tier.batch_size, spec.accumulation or tier.accumulation


def optimizer_steps(rows: int, spec: OptimizationSpec, tier: Tier) -> int:
    """Return the number of steps the Trainer takes; the last batch and accumulation of an epoch may be short."""
    return spec.max_steps or math.ceil(spec.epochs * steps_in_epoch(rows, spec, tier))


def steps_in_epoch(rows: int, spec: OptimizationSpec, tier: Tier) -> int:
    """Return the number of steps in one pass over the rows, without a token budget."""
    batch, accumulation = batch_rows(spec, tier)
    return math.ceil(math.ceil(rows / batch) / accumulation)


def check_steps(rows: int, spec: OptimizationSpec, tier: Tier) -> None:
    """Raise TrainingError if there are no rows, or if the warm-up is not shorter than the training."""
    if rows == 0:
        raise TrainingError("no rows to train on")
    steps = optimizer_steps(rows, spec, tier)
    if spec.batch_tokens and not spec.max_steps:
        return  # the number of steps depends on the tokens of the rows
    try:
        phases_of(spec, steps)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    warmup = warmup_steps(spec, steps)
    if warmup >= steps:
        raise TrainingError(
            f"warm-up must be shorter than the training of {steps} steps ({rows} rows), got {warmup} steps"
        )


def check_answers(answers: Iterable[Sequence[int]]) -> None:
    """Raise TrainingError if an answer is empty, because its row would have no token under the loss."""
    empty = sum(1 for answer in answers if not answer)
    if empty:
        raise TrainingError(f"{empty} rows have an empty label mask: their response has no tokens")


def check_precision(tier: Tier) -> None:
    """Raise TrainingError if the tier's device or precision is not available."""
    import torch

    if tier.device == "cpu":
        if tier.dtype == "float16":
            raise TrainingError("float16 training needs a CUDA device; use float32 on a CPU")
        return
    if not torch.cuda.is_available():
        raise TrainingError("the tier needs a CUDA device, and none is available")
    if tier.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError(f"{torch.cuda.get_device_name(0)} does not support bfloat16; select a float16 tier")


def check_targets(model: "nn.Module", spec: LoraSpec) -> int:
    """Count the parameters that LoRA adds: rank x (inputs + outputs) over all matched layers.

    Raises:
        TrainingError: a target module matches no linear layer; lists the available modules.
    """
    layers = linear_layers(model)
    matched = {target: [n for n in layers if _module_name(n) == target] for target in spec.target_modules}
    if missing := [target for target, names in matched.items() if not names]:
        available = ", ".join(sorted({_module_name(name) for name in layers}))
        raise TrainingError(f"target modules {', '.join(missing)} match no layer; the model has {available}")
    names = {name for names in matched.values() for name in names}
    return sum(spec.rank * sum(layers[name]) for name in names)


def linear_layers(model: "nn.Module") -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each linear layer by name, including GPT-2's Conv1D."""
    from transformers.pytorch_utils import Conv1D

    layers: dict[str, tuple[int, int]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Conv1D):
            layers[name] = (layer.nx, layer.nf)
        elif hasattr(layer, "in_features") and hasattr(layer, "out_features"):
            layers[name] = (int(layer.in_features), int(layer.out_features))  # pyright: ignore[reportArgumentType]
    return layers


def stores_inputs_first(model: "nn.Module", targets: Sequence[str]) -> bool:
    """Return whether the target layers store weights as (inputs, outputs), like Conv1D; PEFT's `fan_in_fan_out`."""
    from transformers.pytorch_utils import Conv1D

    return all(isinstance(layer, Conv1D) for name, layer in model.named_modules() if _module_name(name) in targets)


def trainable_weights(model: "nn.Module") -> "dict[str, Tensor]":
    """Copy every trainable parameter, by name. Raises TrainingError if there is none."""
    copies = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    if not copies:
        raise TrainingError("the adapter has no trainable parameter")
    return copies


def check_trained(model: "nn.Module", before: "dict[str, Tensor]") -> None:
    """Raise TrainingError if trained weights are not finite, or if none of them changed."""
    import torch

    after = {name: p.detach() for name, p in model.named_parameters() if name in before}
    if broken := [name for name, weights in after.items() if not torch.isfinite(weights).all()]:
        raise TrainingError(f"{len(broken)} trained tensors are not finite, such as {broken[0]}")
    if all(torch.equal(after[name], weights) for name, weights in before.items()):
        raise TrainingError("training changed no weight")


def _module_name(module: str) -> str:
    return module.rpartition(".")[2]
