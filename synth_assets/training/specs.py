"""One frozen spec for each training method, with the reference values of the study this project grew from.

A spec holds what the method decides. What the hardware decides (precision, quantisation, grouping) is the tier's;
`batch_size` and `accumulation` are None where the tier's are meant.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from synth_assets.llm.catalog import ATTENTION, MLP
from synth_assets.schemas.settings import setting

SCHEDULES = ("cosine", "linear", "constant", "three_phase")
ORDERS = ("length", "random", "curriculum", "packed")
DIFFICULTIES = ("length", "base_perplexity", "reward_margin", "score")
PREFERENCE_LOSSES = ("sigmoid", "ipo")
INITIALISATIONS = ("SAMPLE_VOCAB", "RANDOM")
WHOLE = (
    *("max_steps", "reduce_patience", "batch_size", "accumulation", "batch_tokens", "validate_every", "stop_patience"),
    *("scored_rows", "seed", "rank", "alpha", "virtual_tokens"),
)
"""Fields that count something."""
SEEDS = 2**32  # numpy takes no larger seed
THREE_PHASE_PATIENCE = 20  # twice the steps that the smoothed loss remembers (schedules.py)


@dataclass(frozen=True, kw_only=True)
class OptimizationSpec:
    """What every method has: AdamW over `epochs` passes or for `max_steps` steps, a schedule, an order, when to stop.

    Rates of the three-phase schedule are multiples of `learning_rate`: at 2e-4 they are 5e-4, 2e-4, 5e-6 and 1e-6. A
    reduction of the rate lasts; `reduce_patience` counts steps whose smoothed loss is no new lowest.
    """

    learning_rate: float
    epochs: float
    max_steps: int | None = setting(None, "Optimiser steps in total, instead of epochs; 0: by epochs.")
    schedule: Literal["cosine", "linear", "constant", "three_phase"] = setting("cosine", "Learning-rate schedule.")
    warmup_ratio: float = setting(0.03, "Share of all steps that warm up; the three-phase schedule does not.")
    phases: Sequence[float] = setting(
        (0.2, 0.6, 0.2),
        "Exploration, exploitation and refinement of the three-phase schedule: shares of 1, or whole steps.",
    )
    phase_rates: Sequence[float] = setting(
        (2.5, 1.0, 0.025, 0.005),
        "Multiples of the learning rate at the start of each phase, and at the end of the last.",
    )
    reduce_patience: int | None = setting(
        None, "Steps without a new lowest smoothed loss before the rate is reduced; 0: never."
    )
    reduce_factor: float = setting(1.5, "Divisor of a reduced rate, above 1.")
    reduce_floor: float = setting(0.1, "Lowest multiple of the scheduled rate that reductions reach, in (0, 1].")
    weight_decay: float = setting(0.0, "Weight decay of AdamW.")
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.")
    batch_size: int | None = setting(None, "Rows of one forward pass; unset: the tier's.")
    accumulation: int | None = setting(None, "Forward passes for one optimiser step; unset: the tier's.")
    batch_tokens: int | None = setting(None, "Tokens of one forward pass with padding, instead of a number of rows.")
    order: Literal["length", "random", "curriculum", "packed"] = setting(
        "length", "Order of the training rows; packed needs SFT and FlashAttention."
    )
    difficulty: Literal["length", "base_perplexity", "reward_margin", "score"] = setting(
        "length", "What the order curriculum sorts by."
    )
    validate_every: int | None = setting(None, "Steps between validations; unset: after each epoch.")
    stop_patience: int = setting(0, "Validations without improvement before training stops; 0: never.")
    stop_threshold: float = setting(0.0, "Nats by which the validation loss must fall to count as an improvement.")
    keep_best: bool = setting(True, "Keep the weights of the lowest validation loss instead of the last.")
    scored_rows: int = setting(32, "Validation rows that the trained adapter answers, to score its text.")
    seed: int = setting(42, "Seed of weights, order and dropout.")

    def __post_init__(self) -> None:
        """Refuse values no optimiser takes; ValueError names the field."""
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "phase_rates", tuple(self.phase_rates))
        object.__setattr__(self, "max_steps", self.max_steps or None)
        _check_numbers(self)
        _positive(self, "learning_rate", "epochs", "max_grad_norm")
        _rate(self, "warmup_ratio")
        _one_of(self, "schedule", SCHEDULES)
        _one_of(self, "order", ORDERS)
        _one_of(self, "difficulty", DIFFICULTIES)
        _not_negative(self, "weight_decay", "stop_patience", "stop_threshold", "scored_rows")
        for name in ("max_steps", "batch_size", "accumulation", "batch_tokens", "validate_every"):
            if getattr(self, name) is not None:
                _positive(self, name)
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")
        _check_phases(self)

    @property
    def patience_for_rate(self) -> int:
        """Steps without a new lowest loss before the rate is reduced; 0: it never is."""
        if self.reduce_patience is None:
            return THREE_PHASE_PATIENCE if self.schedule == "three_phase" else 0
        return self.reduce_patience


@dataclass(frozen=True, kw_only=True)
class LoraSpec(OptimizationSpec):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685) by supervised fine-tuning on the responses."""

    rank: int = setting(8, "Rank of the update matrices.")
    alpha: int = setting(16, "Scale of the update, over the rank.")
    dropout: float = setting(0.05, "Dropout on the input of the update, in [0, 1).")
    target_modules: Sequence[str] = setting(ATTENTION + MLP, "Linear layers that are adapted.")
    learning_rate: float = setting(2e-4, "Peak learning rate of AdamW.")
    epochs: float = setting(3.0, "Passes over the training rows.")

    def __post_init__(self) -> None:
        """Refuse ranks, dropouts and module lists that PEFT cannot use; ValueError names the field."""
        super().__post_init__()
        object.__setattr__(self, "target_modules", tuple(self.target_modules))
        _positive(self, "rank", "alpha")
        _rate(self, "dropout")
        if not self.target_modules or not all(isinstance(name, str) and name for name in self.target_modules):
            raise ValueError(f"target_modules must be names of linear layers, at least one, got {self.target_modules}")


@dataclass(frozen=True, kw_only=True)
class PromptTuningSpec(OptimizationSpec):
    """Trained virtual tokens before a frozen model's input (Lester et al. 2021, arXiv 2104.08691)."""

    virtual_tokens: int = setting(20, "Trained tokens before the input.")
    initialisation: Literal["SAMPLE_VOCAB", "RANDOM"] = setting(
        "SAMPLE_VOCAB", "Start of the virtual tokens: embeddings of random vocabulary, or random numbers."
    )
    learning_rate: float = setting(3e-4, "Peak learning rate of AdamW.")
    epochs: float = setting(3.0, "Passes over the training rows.")

    def __post_init__(self) -> None:
        """Refuse an empty prompt or an unknown initialisation; ValueError names the field."""
        super().__post_init__()
        _positive(self, "virtual_tokens")
        _one_of(self, "initialisation", INITIALISATIONS)


@dataclass(frozen=True, kw_only=True)
class DpoSpec(OptimizationSpec):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), continuing the LoRA adapter.

    The loss is `dpo_weight` x preference loss + `sft_weight` x negative log-likelihood per token of the chosen.
    """

    beta: float = setting(0.1, "Pull towards the reference, above 0.")
    loss: Literal["sigmoid", "ipo"] = setting("sigmoid", "Preference loss.")
    label_smoothing: float = setting(
        0.0, "Share of preference labels taken to be wrong, in [0, 0.5); sigmoid loss only."
    )
    dpo_weight: float = setting(1.0, "Weight of the preference loss.")
    sft_weight: float = setting(0.0, "Weight of the negative log-likelihood per token of the chosen response.")
    learning_rate: float = setting(5e-5, "Peak learning rate of AdamW.")
    epochs: float = setting(1.0, "Passes over the training rows.")

    def __post_init__(self) -> None:
        """Refuse losses without a term and smoothing that erases the label; ValueError names the field."""
        super().__post_init__()
        _positive(self, "beta")
        _one_of(self, "loss", PREFERENCE_LOSSES)
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), got {self.label_smoothing}")
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(f"label_smoothing is defined for the sigmoid loss, not for {self.loss}")
        if min(self.dpo_weight, self.sft_weight) < 0 or self.dpo_weight + self.sft_weight == 0:
            raise ValueError(f"dpo_weight {self.dpo_weight} and sft_weight {self.sft_weight} leave no loss")


@dataclass(frozen=True, kw_only=True)
class OnPolicyDpoSpec(DpoSpec):
    """The same on pairs that the policy's own responses are in; a class of its own, so that a tier can set it apart."""


@dataclass(frozen=True, kw_only=True)
class RejectionSamplingSpec(OptimizationSpec):
    """Supervised fine-tuning on the best of k responses, continuing the LoRA adapter.

    The step of RAFT (Dong et al. 2023, arXiv 2304.06767); rate and epochs as in DPO, so that the two compare.
    """

    learning_rate: float = setting(5e-5, "Peak learning rate of AdamW.")
    epochs: float = setting(1.0, "Passes over the training rows.")


AdapterSpec = LoraSpec | PromptTuningSpec | DpoSpec | RejectionSamplingSpec


def spec_settings(spec: OptimizationSpec) -> dict[str, Any]:
    """Return the settings of a spec that are not None, so that a new one that is off changes no fingerprint."""
    return {name: value for name, value in asdict(spec).items() if value is not None}


def _check_numbers(spec: OptimizationSpec) -> None:
    """Refuse numbers that are not finite, and fractions where the default is a whole number."""
    for field in fields(spec):
        value = getattr(spec, field.name)
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(each, float) and not math.isfinite(each) for each in values):
            raise ValueError(f"{field.name} must be finite, got {value}")
        if field.name in WHOLE and value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{field.name} must be a whole number, got {value!r}")


def _positive(spec: object, *names: str) -> None:
    for name in names:
        if not getattr(spec, name) > 0:
            raise ValueError(f"{name} must be above 0, got {getattr(spec, name)}")


def _rate(spec: object, name: str) -> None:
    if not 0 <= getattr(spec, name) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {getattr(spec, name)}")


def _one_of(spec: object, name: str, known: tuple[str, ...]) -> None:
    if getattr(spec, name) not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(spec, name)!r}")


def _not_negative(spec: object, *names: str) -> None:
    for name in names:
        if not getattr(spec, name) >= 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(spec, name)}")


def _check_phases(spec: OptimizationSpec) -> None:
    shares = math.isclose(sum(spec.phases), 1.0)
    if len(spec.phases) != 3 or min(spec.phases) < 0 or not (shares or all(float(p).is_integer() for p in spec.phases)):
        raise ValueError(f"phases must be three shares of 1 or three numbers of steps, got {spec.phases}")
    if len(spec.phase_rates) != 4 or min(spec.phase_rates) <= 0:
        raise ValueError(f"phase_rates must be four numbers above 0, got {spec.phase_rates}")
    if spec.reduce_patience is not None:
        _not_negative(spec, "reduce_patience")
    if spec.reduce_factor <= 1:
        raise ValueError(f"reduce_factor must be above 1, got {spec.reduce_factor}")
    if not 0 < spec.reduce_floor <= 1:
        raise ValueError(f"reduce_floor must be in (0, 1], got {spec.reduce_floor}")
