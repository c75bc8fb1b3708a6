"""Learning rates over the steps of a training, phase by phase, and how they give way to the measured loss.

The three-phase schedule explores at a high rate that falls linearly, exploits along a cosine, and refines along an
exponential; it has no warm-up, which would undo the exploration.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from synth_assets.training.specs import OptimizationSpec

Strategy = Literal["linear", "cosine", "exponential", "constant"]

LOSS_SMOOTHING = 0.1  # weight of the newest loss in the running mean that patience looks at: about ten steps


@dataclass(frozen=True)
class Phase:
    """A stretch of steps, counted from 1, on which the rate moves from one value towards another.

    `end_rate` is what the step after `last_step` would have.
    """

    number: int
    name: str
    strategy: Strategy
    first_step: int
    last_step: int
    start_rate: float
    end_rate: float

    def rate(self, step: int) -> float:
        """The rate of a step of this phase."""
        done = (step - self.first_step) / (self.last_step + 1 - self.first_step)
        if self.strategy == "cosine":
            return self.end_rate + (self.start_rate - self.end_rate) * (0.5 * (1.0 + math.cos(math.pi * done)))
        if self.strategy == "exponential":
            return self.start_rate * (self.end_rate / self.start_rate) ** done
        return self.start_rate + (self.end_rate - self.start_rate) * done


def phases_of(spec: OptimizationSpec, steps: int) -> list[Phase]:
    """The phases of a training of `steps`, in order, none of them empty.

    Raises:
        ValueError: phases given in steps are not as many as the training's.
    """
    if spec.schedule == "three_phase":
        return _three_phases(spec, steps)
    warmup = warmup_steps(spec, steps)
    end = spec.learning_rate if spec.schedule == "constant" else 0.0
    stretches = [
        ("warm-up", "linear", warmup, (0.0, spec.learning_rate)),
        ("training", spec.schedule, steps, (spec.learning_rate, end)),
    ]
    return _numbered(stretches)


def warmup_steps(spec: OptimizationSpec, steps: int) -> int:
    """How many of `steps` warm up; none in the three-phase schedule."""
    return 0 if spec.schedule == "three_phase" else math.ceil(spec.warmup_ratio * steps)


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase of a step, counted from 1; beyond the last phase, the last."""
    return next((phase for phase in phases if step <= phase.last_step), phases[-1])


def _three_phases(spec: OptimizationSpec, steps: int) -> list[Phase]:
    ends = _ends(spec.phases, steps)
    rates = [factor * spec.learning_rate for factor in spec.phase_rates]
    names: list[tuple[str, Strategy]] = [
        ("exploration", "linear"),
        ("exploitation", "cosine"),
        ("refinement", "exponential"),
    ]
    between = itertools.pairwise(rates)
    return _numbered(
        [(name, strategy, end, both) for (name, strategy), end, both in zip(names, ends, between, strict=True)]
    )


def _ends(phases: Sequence[float], steps: int) -> list[int]:
    """The last step of each phase, from shares of all steps or from numbers of steps."""
    if math.isclose(sum(phases), 1.0):
        first, second, _ = phases
        return [round(first * steps), round((first + second) * steps), steps]
    if sum(phases) != steps:
        raise ValueError(f"phases of {', '.join(f'{p:g}' for p in phases)} steps are not the {steps} of the training")
    first, second, _ = (int(phase) for phase in phases)
    return [first, first + second, steps]


def _numbered(stretches: Sequence[tuple[str, Any, int, tuple[float, float]]]) -> list[Phase]:
    """Phases from (name, strategy, last step, rates); those without a step are left out."""
    phases: list[Phase] = []
    begun = 0
    for name, strategy, end, (start_rate, end_rate) in stretches:
        if end > begun:
            phases.append(Phase(len(phases) + 1, name, strategy, begun + 1, end, start_rate, end_rate))
            begun = end
    return phases


class AdaptiveRate:
    """The rate of each step: the plan's, times a scale that the measured loss lowers and nothing raises.

    Each time the smoothed training loss has had no new lowest value for `reduce_patience` steps, the scale is divided
    by `reduce_factor`, down to `reduce_floor`.
    """

    def __init__(self, spec: OptimizationSpec, steps: int) -> None:
        """The plan of `spec` over `steps`; ValueError as in `phases_of`."""
        self.spec, self.phases = spec, phases_of(spec, steps)
        self.scale = 1.0
        self.smoothed = self.best = math.inf
        self.waited = 0

    def factor(self, done: int) -> float:
        """Of the learning rate, for the step after `done` steps."""
        step = done + 1
        return phase_at(self.phases, step).rate(step) / self.spec.learning_rate * self.scale

    def observe(self, loss: float) -> bool:
        """Take the loss of one step; returns whether the scale was lowered."""
        patience = self.spec.patience_for_rate
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
        """What a checkpoint keeps."""
        return {"scale": self.scale, "smoothed": self.smoothed, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave."""
        self.scale, self.smoothed, self.best = state["scale"], state["smoothed"], state["best"]
        self.waited = int(state["waited"])
