"""Optimisers of the embedded models: Muon for the hidden matrices, AdamW for all other parameters."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GRADIENT_NORM = 1.0
REPORT_EVERY_S = 5.0


class Optimizers:
    """Muon (Jordan 2024, kellerjordan.github.io/posts/muon) for hidden matrices, AdamW for all other parameters.

    Muon's update is scaled to the RMS of AdamW's (`match_rms_adamw`, Moonlight, arXiv 2502.16982).
    """

    def __init__(self, model: "torch.nn.Module", *, muon_lr: float, adam_lr: float, weight_decay: float) -> None:
        """Assign the model's parameters; hidden matrices are those outside the embeddings and the score head."""
        import torch

        matrices, rest = [], []
        for name, parameter in model.named_parameters():
            hidden = parameter.ndim > 1 and "embed" not in name and "score" not in name
            (matrices if hidden else rest).append(parameter)
        self._rest = rest
        self._muon = torch.optim.Muon(matrices, lr=muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        groups = [
            {"params": [parameter for parameter in rest if parameter.ndim > 1], "weight_decay": weight_decay},
            {"params": [parameter for parameter in rest if parameter.ndim == 1], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(groups, lr=adam_lr, betas=(0.9, 0.98), fused=True)
        self._rates = ((self._muon, muon_lr), (self._adam, adam_lr))

    def step(self, scale: float) -> None:
        """Take one step with both learning rates multiplied by `scale`, and reset the gradients.

        Only AdamW's gradients are clipped, because Muon's update does not depend on the gradient norm.
        """
        import torch

        torch.nn.utils.clip_grad_norm_(self._rest, GRADIENT_NORM)
        for optimizer, rate in self._rates:
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


@dataclass
class Ticker:
    """Progress reporter: one line every few seconds, with rate and time left."""

    progress: Callable[[str], None]
    what: str
    total: int
    unit: str
    started_s: float = field(default_factory=monotonic)
    reported_s: float = field(default_factory=monotonic)

    def tick(self, done: int, note: str = "") -> None:
        """Report `done` of the total if enough time has passed since the last line."""
        now = monotonic()
        if now - self.reported_s < REPORT_EVERY_S:
            return
        self.reported_s = now
        rate = done / (now - self.started_s)
        left_s = (self.total - done) / rate if rate else float("inf")
        self.progress(f"{self.what}: {done:,} of {self.total:,} {self.unit}, {rate:,.0f}/s, {left_s:.0f} s left{note}")
