"""Which weights a training keeps, and when it has learned what it can: both by the loss on validation rows."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synth_assets.training.specs import OptimizationSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Best:
    """The weights of the lowest validation loss so far, and how long there was no lower one."""

    def __init__(self, spec: OptimizationSpec) -> None:
        """Nothing was validated yet."""
        self.spec = spec
        self.weights: dict[str, Tensor] = {}
        self.loss = self.bar = math.inf
        self.step = self.waited = 0

    def judge(self, step: int, loss: float, model: "nn.Module") -> bool:
        """Take a validation; returns whether patience is at its end."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            if self.spec.keep_best:
                self.weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        if loss < self.bar - self.spec.stop_threshold:
            self.bar, self.waited = loss, 0
        else:
            self.waited += 1
        return 0 < self.spec.stop_patience <= self.waited

    def why(self) -> str:
        """The reason for stopping."""
        return f"{self.waited} validations without a loss {self.spec.stop_threshold:g} below {self.bar:.4f}"

    def put_into(self, model: "nn.Module") -> None:
        """Give the model the best weights, where any were kept."""
        import torch

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.weights:
                    parameter.copy_(self.weights[name])

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps beside the weights."""
        return {"loss": self.loss, "bar": self.bar, "step": self.step, "waited": self.waited}

    def restore(self, state: Mapping[str, Any], weights: Mapping[str, "Tensor"], model: "nn.Module") -> None:
        """Go on from what `state` gave, with the weights on the model's device."""
        self.loss, self.bar = state["loss"], state["bar"]
        self.step, self.waited = int(state["step"]), int(state["waited"])
        place = next(model.parameters()).device
        self.weights = {name: tensor.to(place) for name, tensor in weights.items()}
