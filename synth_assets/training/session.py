"""One training as a whole: what it keeps beside its trainer, and how a signal ends it."""

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
from synth_assets.training.schedules import AdaptiveRate, phase_at
from synth_assets.training.selection import Best
from synth_assets.training.specs import OptimizationSpec

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # Dagster ends a step with the second


class TrainingInterruptedError(RuntimeError):
    """A signal asked the process to end; where checkpoints are kept, the next start goes on from here."""


class Session:
    """One training, over all processes and attempts that it takes."""

    def __init__(
        self,
        spec: OptimizationSpec,
        curve: Curve,
        checkpoints: Checkpoints | None,
        budget: Budget,
        difficulty: Sequence[float],
    ) -> None:
        """Without `checkpoints` nothing survives the process; `difficulty` is of the training rows."""
        self.spec, self.curve, self.checkpoints, self.budget = spec, curve, checkpoints, budget
        self.difficulty = difficulty
        self.best = Best(spec)
        self.rate: AdaptiveRate | None = None
        self.batches: Batches | None = None
        self.resumed_epoch: list[Batch] = []  # the order of the epoch that a checkpoint was written in
        self.ended = False  # the checkpoint is the end of the training: nothing is left to train
        self.events: list[str] = []
        self.signal = 0
        self.saved = time.monotonic()
        self.applied_rate = 0.0

    def tell(self, line: str) -> None:
        """A line for whoever watches, kept with the adapter."""
        self.events.append(line)
        self.curve.progress(f"{self.curve.what}: {line}")

    def facts(self, step: int) -> dict[str, float]:
        """The rate that the optimiser took for a step, its phase and the scale of the rate."""
        if self.rate is None:
            return {}
        phase = phase_at(self.rate.phases, step).number
        return {"learning_rate": self.applied_rate, "phase": float(phase), "rate_scale": self.rate.scale}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside weights, optimiser and random generators."""
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
def ending_gently(session: Session) -> Iterator[None]:
    """Have a first SIGTERM or SIGINT end the training at its next step, and a second one do what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _: FrameType | None) -> None:
        session.signal = number
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()


def deliver(session: Session) -> None:
    """Let the signal that ended a training do what it does without us."""
    if session.signal:
        signal.raise_signal(signal.Signals(session.signal))
