"""Training session: state that outlives a Trainer, and graceful stopping on signals."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from synth_assets.training.batches import Batch, Batches
from synth_assets.training.budget import Budget
from synth_assets.training.callbacks import Curve
from synth_assets.training.checkpoints import Checkpoints
from synth_assets.training.live_answers import LiveAnswers
from synth_assets.training.schedules import AdaptiveRate, phase_at
from synth_assets.training.selection import BestWeights
from synth_assets.training.specs import OptimizationSpec

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # Dagster terminates a step with SIGINT


class TrainingInterruptedError(RuntimeError):
    """A signal stopped the training. With checkpoints, the next run resumes it."""


class Session:
    """State of one training across attempts and resumed processes."""

    def __init__(
        self,
        spec: OptimizationSpec,
        curve: Curve,
        checkpoints: Checkpoints | None,
        budget: Budget,
        difficulty: Sequence[float],
    ) -> None:
        """Create a session. Without `checkpoints` it cannot be resumed; `difficulty` has one value per training row."""
        self.spec, self.curve, self.checkpoints, self.budget = spec, curve, checkpoints, budget
        self.difficulty = difficulty
        self.best = BestWeights(spec)
        self.rate: AdaptiveRate | None = None
        self.batches: Batches | None = None
        self.resumed_epoch: list[Batch] = []  # batches of the epoch in which the checkpoint was written
        self.ended = False  # True if the checkpoint was written after the last step
        self.events: list[str] = []
        self.signal = 0
        self.saved = time.monotonic()
        self.applied_rate = 0.0
        self.answers: LiveAnswers | None = None

    def report(self, line: str) -> None:
        """Report a line to `progress`, and keep it as an event of the adapter."""
        self.events.append(line)
        self.curve.progress(f"{self.curve.name}: {line}")

    def facts(self, step: int) -> dict[str, float]:
        """Return the applied learning rate of a step, its phase and the scale of the rate."""
        if self.rate is None:
            return {}
        phase = phase_at(self.rate.phases, step).number
        return {"learning_rate": self.applied_rate, "phase": float(phase), "rate_scale": self.rate.scale}

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, without weights, optimiser and random generators."""
        rate = self.rate.state() if self.rate else {}
        return {
            "curve": self.curve.state(),
            "rate": rate,
            "best": self.best.state(),
            "epoch": [] if self.batches is None else self.batches.epoch,
            "events": self.events,
            "batch_size": self.spec.batch_size,
            "accumulation": self.spec.accumulation,
            "batch_tokens": self.spec.batch_tokens,
        }


@contextmanager
def graceful_stop(session: Session) -> Iterator[None]:
    """Stop the training at its next step on the first SIGTERM or SIGINT; a second one has its previous effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, _: FrameType | None) -> None:
        session.signal = number
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def raise_pending_signal(session: Session) -> None:
    """Raise the signal that stopped a training again, now with its previous handler."""
    if session.signal:
        signal.raise_signal(signal.Signals(session.signal))
