"""Keep the best weights and stop early, based on the validation loss."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synth_assets.training.specs import OptimizationSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class BestWeights:
    """Weights with the lowest validation loss so far, and the patience counter of early stopping."""

    def __init__(self, spec: OptimizationSpec) -> None:
        """Start without any validation."""
        self.spec = spec
        self.weights: dict[str, Tensor] = {}
        self.loss = self.bar = math.inf
        self.step = self.waited = 0

    def update(self, step: int, loss: float, model: "nn.Module") -> bool:
        """Record a validation; return whether the patience is used up."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            if self.spec.keep_best:
                self.weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        if loss < self.bar - self.spec.stop_threshold:
            self.bar, self.waited = loss, 0
        else:
            self.waited += 1
        return 0 < self.spec.stop_patience <= self.waited

    def stop_reason(self) -> str:
        """Return the reason for early stopping."""
        return f"no improvement of {self.spec.stop_threshold:g} below loss {self.bar:.4f} in {self.waited} validations"

    def load_into(self, model: "nn.Module") -> None:
        """Load the best weights, if any, into the model."""
        import torch

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.weights:
                    parameter.copy_(self.weights[name])

    def state(self) -> dict[str, float]:
        """Return the state for a checkpoint, without the weights."""
        return {"loss": self.loss, "bar": self.bar, "step": self.step, "waited": self.waited}

    def restore(self, state: Mapping[str, Any], weights: Mapping[str, "Tensor"], model: "nn.Module") -> None:
        """Restore the state from a checkpoint, with the weights on the model's device."""
        self.loss, self.bar = state["loss"], state["bar"]
        self.step, self.waited = int(state["step"]), int(state["waited"])
        device = next(model.parameters()).device
        self.weights = {name: tensor.to(device) for name, tensor in weights.items()}
