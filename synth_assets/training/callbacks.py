"""Training curve: record logged metrics, report progress, and stop on values that are not finite."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from synth_assets.storage.blocks import REPORT_EVERY_S, Progress
from synth_assets.training.errors import TrainingError

CURVE_KEYS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "margin": "reward_margin",  # these two of the reward trainer
    "accuracy": "reward_accuracy",
    "eval_loss": "eval_loss",
    "eval_mean_token_accuracy": "eval_token_accuracy",
    "eval_rewards/margins": "eval_reward_margin",
    "eval_rewards/accuracies": "eval_reward_accuracy",
}
"""Metric name in the Trainer's logs -> name in the curve."""

PROGRESS_METRICS = ("loss", "eval_loss", "reward_margin")

MAX_OVERFLOWS_FLOAT16 = 20  # the gradient scaler starts at 2**16 and halves; overflowing steps are skipped


class TrainingObserver(Protocol):
    """Receiver of a training's progress. It must neither raise nor draw random numbers."""

    def started(self, fingerprint: str, settings: Mapping[str, Any]) -> None:
        """Take the fingerprint and the settings of a training that starts or resumes."""
        ...

    def logged(self, point: Mapping[str, float]) -> None:
        """Take a point of the curve."""
        ...


class Unobserved:
    """Observer that ignores everything."""

    def started(self, fingerprint: str, settings: Mapping[str, Any]) -> None:
        """Ignore the start."""

    def logged(self, point: Mapping[str, float]) -> None:
        """Ignore a point."""


UNOBSERVED = Unobserved()


class Curve:
    """Logged metrics of a training, one point per step and per validation."""

    def __init__(
        self,
        name: str,
        progress: Progress,
        max_overflows: int = 0,
        observe: Callable[[Mapping[str, float]], None] = UNOBSERVED.logged,
    ) -> None:
        """Report the adapter `name` to `progress`, and each point to `observe`.

        Allow `max_overflows` consecutive steps with infinite gradients.
        """
        self.name, self.progress, self.max_overflows, self.observe = name, progress, max_overflows, observe
        self.points: list[dict[str, float]] = []
        self.tokens = 0
        self.slots = 0
        self.overflowed = 0
        self.validation_s = 0.0
        self.started = self.reported = time.monotonic()

    def add(self, step: int, steps: int, logs: Mapping[str, Any], facts: Mapping[str, float] | None = None) -> None:
        """Record a log entry of the Trainer, adding `facts` of the step to entries with a training loss.

        Raises:
            TrainingError: the loss or the gradient norm is not finite.
        """
        point = {key: float(logs[name]) for name, key in CURVE_KEYS.items() if name in logs}
        if not point:
            return
        if "loss" in point:
            point |= facts or {}
        self.tokens = int(logs.get("num_tokens", self.tokens))
        self.validation_s += float(logs.get("eval_runtime", 0.0))
        self._check_finite(step, point)
        self.points.append({"step": float(step), "epoch": float(logs.get("epoch", 0.0))} | point)
        self.observe(self.points[-1])
        self._report(step, steps, point)

    def seconds(self) -> float:
        """Return the wall time in seconds since the training began, across resumed processes."""
        return time.monotonic() - self.started

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        names = ("points", "tokens", "slots", "overflowed", "validation_s")
        return {**{name: getattr(self, name) for name in names}, "seconds": self.seconds()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        for name, value in state.items():
            if name != "seconds":
                setattr(self, name, value)
        self.points = list(self.points)
        self.started = time.monotonic() - state["seconds"]

    def losses(self) -> list[float]:
        """Return the training loss of each step."""
        return [point["loss"] for point in self.points if "loss" in point]

    def final_loss(self) -> float:
        """Return the mean training loss of the last tenth of the steps."""
        losses = self.losses()
        last = losses[-max(1, len(losses) // 10) :]
        return sum(last) / len(last)

    def _check_finite(self, step: int, point: Mapping[str, float]) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite(point.get(name, 0.0)):
                raise TrainingError(f"{name} is {point[name]} at step {step}: training diverged")
        if math.isfinite(norm := point.get("grad_norm", 0.0)):
            self.overflowed = 0
            return
        self.overflowed += 1
        if self.overflowed > self.max_overflows:
            raise TrainingError(f"the gradient norm is {norm} at step {step}: training diverged")

    def _report(self, step: int, steps: int, point: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self.reported < REPORT_EVERY_S and step < steps:
            return
        self.reported = now
        elapsed = max(now - self.started, 1e-9)
        metrics = ", ".join(f"{name} {point[name]:.3f}" for name in PROGRESS_METRICS if name in point)
        left = elapsed / max(step, 1) * (steps - step)
        self.progress(
            f"{self.name}: step {step} of {steps}, {metrics}, {self.tokens / elapsed:,.0f} tokens/s, {left:.0f} s left"
        )
