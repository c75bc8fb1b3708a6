"""Watching a training: its curve, a progress line every few seconds, and the end of it where a number is not finite."""

import math
import time
from collections.abc import Mapping
from typing import Any

from synth_assets.storage.blocks import REPORT_EVERY_S, Progress
from synth_assets.training.errors import TrainingError

CURVE_KEYS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "eval_loss": "eval_loss",
    "eval_mean_token_accuracy": "eval_token_accuracy",
    "eval_rewards/margins": "eval_reward_margin",
    "eval_rewards/accuracies": "eval_reward_accuracy",
}
"""Trainer's names of the numbers that are kept -> ours."""

REPORTED = ("loss", "eval_loss", "reward_margin")

OVERFLOWS_IN_FLOAT16 = 20  # the gradient scaler starts at 2**16 and halves; such steps are skipped, not applied


class Curve:
    """The numbers that a training logged, one point for each step and each validation."""

    def __init__(self, what: str, progress: Progress, overflows: int = 0) -> None:
        """Tell `progress` about the adapter `what`; bear `overflows` steps in a row whose gradient is not finite."""
        self.what, self.progress, self.overflows = what, progress, overflows
        self.points: list[dict[str, float]] = []
        self.tokens = 0
        self.slots = 0
        self.overflowed = 0
        self.validation_s = 0.0
        self.started = self.reported = time.monotonic()

    def add(self, step: int, steps: int, logs: Mapping[str, Any], facts: Mapping[str, float] | None = None) -> None:
        """Keep one log entry of the Trainer, with `facts` of the step beside a training loss.

        Raises:
            TrainingError: its loss or gradient norm is not finite.
        """
        point = {ours: float(logs[name]) for name, ours in CURVE_KEYS.items() if name in logs}
        if not point:
            return
        if "loss" in point:
            point |= facts or {}
        self.tokens = int(logs.get("num_tokens", self.tokens))
        self.validation_s += float(logs.get("eval_runtime", 0.0))
        self._refuse_broken(step, point)
        self.points.append({"step": float(step), "epoch": float(logs.get("epoch", 0.0))} | point)
        self._report(step, steps, point)

    def seconds(self) -> float:
        """Of the wall since the training began, in all its processes."""
        return time.monotonic() - self.started

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        kept = ("points", "tokens", "slots", "overflowed", "validation_s")
        return {**{name: getattr(self, name) for name in kept}, "seconds": self.seconds()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            if name != "seconds":
                setattr(self, name, value)
        self.points = list(self.points)
        self.started = time.monotonic() - state["seconds"]

    def losses(self) -> list[float]:
        """The training loss of each step."""
        return [point["loss"] for point in self.points if "loss" in point]

    def final_loss(self) -> float:
        """Mean training loss of the last tenth of the steps."""
        losses = self.losses()
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last)

    def _refuse_broken(self, step: int, point: Mapping[str, float]) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite(point.get(name, 0.0)):
                raise TrainingError(f"{name} is {point[name]} at step {step}: training diverged")
        if math.isfinite(norm := point.get("grad_norm", 0.0)):
            self.overflowed = 0
            return
        self.overflowed += 1
        if self.overflowed > self.overflows:
            raise TrainingError(f"the gradient norm is {norm} at step {step}: training diverged")

    def _report(self, step: int, steps: int, point: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self.reported < REPORT_EVERY_S and step < steps:
            return
        self.reported = now
        spent = max(now - self.started, 1e-9)
        numbers = ", ".join(f"{name} {point[name]:.3f}" for name in REPORTED if name in point)
        left = spent / max(step, 1) * (steps - step)
        self.progress(
            f"{self.what}: step {step} of {steps}, {numbers}, {self.tokens / spent:,.0f} tokens/s, {left:.0f} s left"
        )
