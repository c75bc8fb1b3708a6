"""Pre- and post-training validation: precision, steps, target modules, changed weights."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from synth_assets.schemas.tier import Tier
from synth_assets.training.schedules import phases_of, warmup_steps
from synth_assets.training.specs import LoraSpec, OptimizationSpec

if TYPE_CHECKING:
    from torch import Tensor, nn
from synth_assets.training.errors import TrainingError


def batch_rows(spec: OptimizationSpec, tier: Tier) -> tuple[int, int]:
    """(rows in one forward pass, forward passes for one step), the spec's where it names them, else the tier's."""
    return spec.batch_size or tier.batch_size, spec.accumulation or tier.accumulation


def optimizer_steps(rows: int, spec: OptimizationSpec, tier: Tier) -> int:
    """How many steps the Trainer will take; the last batch and the last accumulation of an epoch may be short."""
    return spec.max_steps or math.ceil(spec.epochs * steps_in_epoch(rows, spec, tier))


def steps_in_epoch(rows: int, spec: OptimizationSpec, tier: Tier) -> int:
    """Return how many steps one pass over the rows takes, where no token budget decides."""
    batch, accumulation = batch_rows(spec, tier)
    return math.ceil(math.ceil(rows / batch) / accumulation)


def check_steps(rows: int, spec: OptimizationSpec, tier: Tier) -> None:
    """Refuse a training without rows, or one that would end while it still warms up."""
    if rows == 0:
        raise TrainingError("there is no row to train on")
    steps = optimizer_steps(rows, spec, tier)
    if spec.batch_tokens and not spec.max_steps:
        return  # the number of steps is known once the rows are tokens
    try:
        phases_of(spec, steps)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    warmup = warmup_steps(spec, steps)
    if warmup >= steps:
        raise TrainingError(f"warm-up of {warmup} steps is not below the {steps} steps that {rows} rows give")


def check_answers(answers: Iterable[Sequence[int]]) -> None:
    """Refuse rows of which nothing would be learned: each needs one token under the loss."""
    empty = sum(1 for answer in answers if not answer)
    if empty:
        raise TrainingError(f"{empty} rows have an empty label mask: no token of a response to learn")


def check_precision(tier: Tier) -> None:
    """Refuse a device that is not there, and a precision that it lacks."""
    import torch

    if tier.device == "cpu":
        if tier.dtype == "float16":
            raise TrainingError("float16 training needs a CUDA device; the cpu trains in float32")
        return
    if not torch.cuda.is_available():
        raise TrainingError("the tier asks for a CUDA device and there is none")
    if tier.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError(f"{torch.cuda.get_device_name(0)} has no bfloat16; choose a float16 tier")


def check_targets(model: "nn.Module", spec: LoraSpec) -> int:
    """Return the number of parameters that LoRA of this spec adds: rank x (inputs + outputs) over all matched layers.

    Raises:
        TrainingError: a target module matches no linear layer of the model; names those that would.
    """
    layers = linear_layers(model)
    matched = {target: [n for n in layers if _last(n) == target] for target in spec.target_modules}
    if missing := [target for target, names in matched.items() if not names]:
        found = ", ".join(sorted({_last(name) for name in layers}))
        raise TrainingError(f"target modules {', '.join(missing)} match no layer; the model has {found}")
    names = {name for names in matched.values() for name in names}
    return sum(spec.rank * sum(layers[name]) for name in names)


def linear_layers(model: "nn.Module") -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each linear layer by its name; GPT-2's Conv1D is a linear layer too."""
    from transformers.pytorch_utils import Conv1D

    layers: dict[str, tuple[int, int]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, Conv1D):
            layers[name] = (layer.nx, layer.nf)
        elif hasattr(layer, "in_features") and hasattr(layer, "out_features"):
            layers[name] = (int(layer.in_features), int(layer.out_features))  # pyright: ignore[reportArgumentType]
    return layers


def stores_inputs_first(model: "nn.Module", targets: Sequence[str]) -> bool:
    """Whether the targeted layers store their weights as (inputs, outputs), as Conv1D does; PEFT has to know."""
    from transformers.pytorch_utils import Conv1D

    return all(isinstance(layer, Conv1D) for name, layer in model.named_modules() if _last(name) in targets)


def trainable(model: "nn.Module") -> "dict[str, Tensor]":
    """A copy of every trainable parameter, by name; TrainingError where there is none."""
    copies = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    if not copies:
        raise TrainingError("the adapter has no trainable parameter")
    return copies


def check_trained(model: "nn.Module", before: "dict[str, Tensor]") -> None:
    """Refuse weights that are not finite, or that training left as they were."""
    import torch

    after = {name: p.detach() for name, p in model.named_parameters() if name in before}
    if broken := [name for name, weights in after.items() if not torch.isfinite(weights).all()]:
        raise TrainingError(f"{len(broken)} trained tensors are not finite, such as {broken[0]}")
    if all(torch.equal(after[name], weights) for name, weights in before.items()):
        raise TrainingError("training changed no weight")


def _last(module: str) -> str:
    return module.rpartition(".")[2]
