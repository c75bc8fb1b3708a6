"""Learning-rate schedules in phases, with reductions when the loss stalls.

The three-phase schedule explores at a high rate with linear decay, exploits with cosine decay, and refines with
exponential decay. It has no warm-up, which would undo the exploration.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from synth_assets.training.specs import OptimizationSpec

Strategy = Literal["linear", "cosine", "exponential", "constant"]

LOSS_SMOOTHING = 0.1  # weight of the newest loss in the running mean for patience: about ten steps


@dataclass(frozen=True)
class Phase:
    """A range of steps, counted from 1, over which the rate goes from `start_rate` to `end_rate`.

    `end_rate` is the rate of the step after `last_step`.
    """

    number: int
    name: str
    strategy: Strategy
    first_step: int
    last_step: int
    start_rate: float
    end_rate: float

    def rate(self, step: int) -> float:
        """Return the rate of a step in this phase."""
        done = (step - self.first_step) / (self.last_step + 1 - self.first_step)
        if self.strategy == "cosine":
            return self.end_rate + (self.start_rate - self.end_rate) * (0.5 * (1.0 + math.cos(math.pi * done)))
        if self.strategy == "exponential":
            return self.start_rate * (self.end_rate / self.start_rate) ** done
        return self.start_rate + (self.end_rate - self.start_rate) * done


def phases_of(spec: OptimizationSpec, steps: int) -> list[Phase]:
    """Return the phases of a training of `steps`, in order, without empty phases.

    Raises:
        ValueError: phases in steps do not add up to the steps of the training.
    """
    if spec.schedule == "three_phase":
        return _three_phases(spec, steps)
    warmup = warmup_steps(spec, steps)
    end = spec.learning_rate if spec.schedule == "constant" else 0.0
    ranges = [
        ("warm-up", "linear", warmup, (0.0, spec.learning_rate)),
        ("training", spec.schedule, steps, (spec.learning_rate, end)),
    ]
    return _number_phases(ranges)


def warmup_steps(spec: OptimizationSpec, steps: int) -> int:
    """Return the number of warm-up steps; 0 in the three-phase schedule."""
    return 0 if spec.schedule == "three_phase" else math.ceil(spec.warmup_ratio * steps)


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """Return the phase of a step, counted from 1; the last phase for steps beyond it."""
    return next((phase for phase in phases if step <= phase.last_step), phases[-1])


def _three_phases(spec: OptimizationSpec, steps: int) -> list[Phase]:
    ends = _phase_ends(spec.phases, steps)
    rates = [factor * spec.learning_rate for factor in spec.phase_rates]
    names: list[tuple[str, Strategy]] = [
        ("exploration", "linear"),
        ("exploitation", "cosine"),
        ("refinement", "exponential"),
    ]
    rate_pairs = itertools.pairwise(rates)
    return _number_phases(
        [(name, strategy, end, pair) for (name, strategy), end, pair in zip(names, ends, rate_pairs, strict=True)]
    )


def _phase_ends(phases: Sequence[float], steps: int) -> list[int]:
    """Return the last step of each phase, from shares of 1 or from numbers of steps."""
    if math.isclose(sum(phases), 1.0):
        first, second, _ = phases
        return [round(first * steps), round((first + second) * steps), steps]
    if sum(phases) != steps:
        raise ValueError(f"phases must add up to {steps} steps, got {', '.join(f'{p:g}' for p in phases)}")
    first, second, _ = (int(phase) for phase in phases)
    return [first, first + second, steps]


def _number_phases(ranges: Sequence[tuple[str, Any, int, tuple[float, float]]]) -> list[Phase]:
    """Build phases from (name, strategy, last step, rates), without those that have no step."""
    phases: list[Phase] = []
    previous_end = 0
    for name, strategy, end, (start_rate, end_rate) in ranges:
        if end > previous_end:
            phases.append(Phase(len(phases) + 1, name, strategy, previous_end + 1, end, start_rate, end_rate))
            previous_end = end
    return phases


class AdaptiveRate:
    """Learning rate of each step: the scheduled rate times a scale that only decreases.

    Whenever the smoothed training loss has no new minimum for `reduce_patience` steps, the scale is divided by
    `reduce_factor`, down to `reduce_floor`.
    """

    def __init__(self, spec: OptimizationSpec, steps: int) -> None:
        """Schedule `spec` over `steps`. Raises ValueError as in `phases_of`."""
        self.spec, self.phases = spec, phases_of(spec, steps)
        self.scale = 1.0
        self.smoothed = self.best = math.inf
        self.waited = 0

    def factor(self, done: int) -> float:
        """Return the multiple of the learning rate for the step after `done` steps."""
        step = done + 1
        return phase_at(self.phases, step).rate(step) / self.spec.learning_rate * self.scale

    def observe(self, loss: float) -> bool:
        """Record the loss of one step; return whether the scale was reduced."""
        patience = self.spec.effective_reduce_patience
        if patience == 0:
            return False
        first = math.isinf(self.smoothed)
        self.smoothed = loss if first else self.smoothed + LOSS_SMOOTHING * (loss - self.smoothed)
        if self.smoothed < self.best:
            self.best, self.waited = self.smoothed, 0
            return False
        self.waited += 1
        if self.waited < patience or self.scale <= self.spec.reduce_floor:
            return False
        self.waited = 0
        self.scale = max(self.spec.reduce_floor, self.scale / self.spec.reduce_factor)
        return True

    def state(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return {"scale": self.scale, "smoothed": self.smoothed, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Restore the state from a checkpoint."""
        self.scale, self.smoothed, self.best = state["scale"], state["smoothed"], state["best"]
        self.waited = int(state["waited"])
