"""Settings of the training methods, one frozen spec each.

The hardware tier sets precision, quantisation and grouping. It also sets `batch_size` and `accumulation` where the spec
leaves them None.
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
INTEGER_FIELDS = (
    *("max_steps", "reduce_patience", "batch_size", "accumulation", "batch_tokens", "validate_every", "stop_patience"),
    *("scored_rows", "seed", "rank", "alpha", "virtual_tokens"),
)
"""Fields that must be integers."""
SEED_LIMIT = 2**32  # numpy's limit
THREE_PHASE_PATIENCE = 20  # twice the window of the smoothed loss (LOSS_SMOOTHING in schedules.py)


@dataclass(frozen=True, kw_only=True)
class OptimizationSpec:
    """Settings of every method: AdamW for `epochs` passes or `max_steps` steps, schedule, row order, early stopping.

    Rates of the three-phase schedule are multiples of `learning_rate`: at 2e-4 they are 5e-4, 2e-4, 5e-6 and 1e-6.
    Reductions of the rate are permanent. `reduce_patience` counts steps without a new minimum of the smoothed loss.
    """

    learning_rate: float
    epochs: float
    max_steps: int | None = setting(None, "Total optimiser steps, instead of epochs; 0: use epochs.")
    schedule: Literal["cosine", "linear", "constant", "three_phase"] = setting("cosine", "Learning-rate schedule.")
    warmup_ratio: float = setting(0.03, "Share of steps for warm-up; ignored by the three-phase schedule.")
    phases: Sequence[float] = setting(
        (0.2, 0.6, 0.2),
        "Exploration, exploitation and refinement of the three-phase schedule: shares of 1, or numbers of steps.",
    )
    phase_rates: Sequence[float] = setting(
        (2.5, 1.0, 0.025, 0.005),
        "Multiples of the learning rate at the start of each phase and at the end of the last.",
    )
    reduce_patience: int | None = setting(
        None, "Steps without a new minimum of the smoothed loss before the rate is reduced; 0: never."
    )
    reduce_factor: float = setting(1.5, "Divisor of the rate in a reduction, above 1.")
    reduce_floor: float = setting(0.1, "Lowest multiple of the scheduled rate after reductions, in (0, 1].")
    weight_decay: float = setting(0.0, "Weight decay of AdamW.")
    max_grad_norm: float = setting(1.0, "Maximum gradient norm for clipping.")
    batch_size: int | None = setting(None, "Rows per forward pass; unset: the tier's.")
    accumulation: int | None = setting(None, "Forward passes per optimiser step; unset: the tier's.")
    batch_tokens: int | None = setting(None, "Tokens per forward pass with padding, instead of a number of rows.")
    order: Literal["length", "random", "curriculum", "packed"] = setting(
        "length", "Order of the training rows; packed requires SFT and FlashAttention."
    )
    difficulty: Literal["length", "base_perplexity", "reward_margin", "score"] = setting(
        "length", "Measure of difficulty for order curriculum."
    )
    validate_every: int | None = setting(None, "Steps between validations; unset: after each epoch.")
    stop_patience: int = setting(0, "Validations without improvement before early stopping; 0: never.")
    stop_threshold: float = setting(
        0.0, "Minimum decrease of the validation loss that counts as an improvement, in nats."
    )
    keep_best: bool = setting(True, "Keep the weights with the lowest validation loss instead of the last ones.")
    scored_rows: int = setting(32, "Validation rows on which the trained adapter's answers are scored.")
    seed: int = setting(42, "Seed for weights, row order and dropout.")

    def __post_init__(self) -> None:
        """Validate the settings. Raises ValueError with the field's name."""
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
        if not 0 <= self.seed < SEED_LIMIT:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")
        _check_phases(self)

    @property
    def effective_reduce_patience(self) -> int:
        """Return `reduce_patience`, or the schedule's default if it is None; 0 disables reductions."""
        if self.reduce_patience is None:
            return THREE_PHASE_PATIENCE if self.schedule == "three_phase" else 0
        return self.reduce_patience


@dataclass(frozen=True, kw_only=True)
class LoraSpec(OptimizationSpec):
    """LoRA, low-rank adaptation (Hu et al. 2021, arXiv 2106.09685), with supervised fine-tuning on the responses."""

    rank: int = setting(8, "Rank of the update matrices.")
    alpha: int = setting(16, "Scaling of the update; the factor is alpha / rank.")
    dropout: float = setting(0.05, "Dropout on the input of the update, in [0, 1).")
    target_modules: Sequence[str] = setting(ATTENTION + MLP, "Linear layers to adapt.")
    learning_rate: float = setting(2e-4, "Peak learning rate of AdamW.")
    epochs: float = setting(3.0, "Passes over the training rows.")

    def __post_init__(self) -> None:
        """Validate the settings. Raises ValueError with the field's name."""
        super().__post_init__()
        object.__setattr__(self, "target_modules", tuple(self.target_modules))
        _positive(self, "rank", "alpha")
        _rate(self, "dropout")
        if not self.target_modules or not all(isinstance(name, str) and name for name in self.target_modules):
            raise ValueError(f"target_modules must name at least one linear layer, got {self.target_modules}")


@dataclass(frozen=True, kw_only=True)
class PromptTuningSpec(OptimizationSpec):
    """Prompt tuning: virtual tokens trained before a frozen model's input (Lester et al. 2021, arXiv 2104.08691)."""

    virtual_tokens: int = setting(20, "Number of virtual tokens.")
    initialisation: Literal["SAMPLE_VOCAB", "RANDOM"] = setting(
        "SAMPLE_VOCAB", "Initialisation of the virtual tokens: embeddings of random vocabulary, or random numbers."
    )
    learning_rate: float = setting(3e-4, "Peak learning rate of AdamW.")
    epochs: float = setting(3.0, "Passes over the training rows.")

    def __post_init__(self) -> None:
        """Validate the settings. Raises ValueError with the field's name."""
        super().__post_init__()
        _positive(self, "virtual_tokens")
        _one_of(self, "initialisation", INITIALISATIONS)


@dataclass(frozen=True, kw_only=True)
class DpoSpec(OptimizationSpec):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), continuing the LoRA adapter.

    The loss is `dpo_weight` x preference loss + `sft_weight` x negative log-likelihood per token of the chosen
    response.
    """

    beta: float = setting(0.1, "Strength of the pull towards the reference, above 0.")
    loss: Literal["sigmoid", "ipo"] = setting("sigmoid", "Preference loss.")
    label_smoothing: float = setting(0.0, "Assumed share of wrong preference labels, in [0, 0.5); sigmoid loss only.")
    dpo_weight: float = setting(1.0, "Weight of the preference loss.")
    sft_weight: float = setting(0.0, "Weight of the negative log-likelihood per token of the chosen response.")
    learning_rate: float = setting(5e-5, "Peak learning rate of AdamW.")
    epochs: float = setting(1.0, "Passes over the training rows.")

    def __post_init__(self) -> None:
        """Validate the settings. Raises ValueError with the field's name."""
        super().__post_init__()
        _positive(self, "beta")
        _one_of(self, "loss", PREFERENCE_LOSSES)
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), got {self.label_smoothing}")
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(f"label_smoothing requires loss sigmoid, got {self.loss}")
        if min(self.dpo_weight, self.sft_weight) < 0 or self.dpo_weight + self.sft_weight == 0:
            raise ValueError(
                "dpo_weight and sft_weight must be at least 0 and not both 0, got "
                f"{self.dpo_weight} and {self.sft_weight}"
            )


@dataclass(frozen=True, kw_only=True)
class OnPolicyDpoSpec(DpoSpec):
    """DPO on pairs that include the policy's own responses; a separate class so that it can have its own defaults."""


@dataclass(frozen=True, kw_only=True)
class RejectionSamplingSpec(OptimizationSpec):
    """Supervised fine-tuning on the best of k responses, continuing the LoRA adapter.

    One step of RAFT (Dong et al. 2023, arXiv 2304.06767). Learning rate and epochs match DPO for a fair comparison.
    """

    learning_rate: float = setting(5e-5, "Peak learning rate of AdamW.")
    epochs: float = setting(1.0, "Passes over the training rows.")


@dataclass(frozen=True, kw_only=True)
class RewardSpec(LoraSpec):
    """A reward model: LoRA and one linear head, trained with the Bradley-Terry loss on pairs.

    The loss is that of Ouyang et al. 2022 (arXiv 2203.02155), eq. 1; they train for one epoch, because more overfit.
    The learning rate is the default of TRL's RewardConfig.
    """

    center: float = setting(
        0.01,
        "Weight of the squared sum of a pair's rewards, which centres them at 0 (Eisenstein et al. 2023, arXiv "
        "2312.09244); 0: none.",
    )
    learning_rate: float = setting(1e-4, "Peak learning rate of AdamW.")
    epochs: float = setting(1.0, "Passes over the training rows.")

    def __post_init__(self) -> None:
        """Validate the settings. Raises ValueError with the field's name."""
        super().__post_init__()
        _not_negative(self, "center")


AdapterSpec = LoraSpec | PromptTuningSpec | DpoSpec | RejectionSamplingSpec


def spec_settings(spec: OptimizationSpec) -> dict[str, Any]:
    """Return the settings of a spec that are not None, so that new settings that are off change no fingerprint."""
    return {name: value for name, value in asdict(spec).items() if value is not None}


def _check_numbers(spec: OptimizationSpec) -> None:
    """Raise ValueError for numbers that are not finite, and for fractions in INTEGER_FIELDS."""
    for field in fields(spec):
        value = getattr(spec, field.name)
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in values):
            raise ValueError(f"{field.name} must be finite, got {value}")
        if (
            field.name in INTEGER_FIELDS
            and value is not None
            and (isinstance(value, bool) or not isinstance(value, int))
        ):
            raise ValueError(f"{field.name} must be an integer, got {value!r}")


def _positive(spec: object, *names: str) -> None:
    for name in names:
        if not getattr(spec, name) > 0:
            raise ValueError(f"{name} must be above 0, got {getattr(spec, name)}")


def _rate(spec: object, name: str) -> None:
    if not 0 <= getattr(spec, name) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {getattr(spec, name)}")


def _one_of(spec: object, name: str, choices: tuple[str, ...]) -> None:
    if getattr(spec, name) not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(spec, name)!r}")


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
