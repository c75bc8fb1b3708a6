"""Shared parts of all trainers: setup, outcome, TRL arguments, and creating and saving adapters."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synth_assets.llm.costs import CHECKPOINT_ACTIVATIONS_BELOW_GB
from synth_assets.llm.loading import suppress_peft_warning
from synth_assets.schemas.tier import Tier
from synth_assets.storage.blocks import Progress
from synth_assets.training.budget import UNLIMITED, Budget
from synth_assets.training.callbacks import UNOBSERVED, TrainingObserver
from synth_assets.training.checkpoints import Checkpoints
from synth_assets.training.preconditions import batch_rows
from synth_assets.training.specs import OptimizationSpec

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LoadedBase = tuple["PreTrainedModel", "PreTrainedTokenizerBase"]
"""A base model in the tier's precision, and its tokenizer."""


@dataclass(frozen=True)
class TrainingSetup:
    """Environment of a training: adapter name, base model, tier, progress, checkpoints and budget.

    `base` is the base model's name in the adapter's files, `context_tokens` its context length. Without `checkpoints`
    a training cannot be resumed. `expected_tokens_per_s` is the rate of the last comparable training. `observer`
    receives each point of the curve.
    """

    name: str
    base: str
    context_tokens: int
    tier: Tier
    progress: Progress
    checkpoints: Checkpoints | None = None
    budget: Budget = UNLIMITED
    expected_tokens_per_s: float | None = None
    observer: TrainingObserver = UNOBSERVED


@dataclass(frozen=True)
class Outcome:
    """Measurements of a training.

    `tokens` counts the training tokens without padding, and `fill_rate` is their share of all positions with padding.
    `seconds` is wall time including validation; `tokens_per_s` excludes validation. `host_peak_bytes` is the peak
    memory of this process (0 if the system does not report it), `predicted` the cost predicted before the training,
    and `validation` the scores of the final weights on validation rows.
    """

    curve: list[dict[str, float]]
    final_loss: float
    steps: int
    tokens: int
    tokens_per_s: float
    seconds: float
    trainable_parameters: int
    total_parameters: int
    peak_memory_bytes: int
    peak_memory_kind: Literal["measured", "derived"]
    fill_rate: float = 1.0
    host_peak_bytes: int = 0
    batch_size: int = 0
    accumulation: int = 0
    best_step: int = 0  # step whose weights were kept; 0: the last step
    phases: list[dict[str, Any]] = field(default_factory=list)
    predicted: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """A finished training: its outcome, and a function that saves the adapter to an empty folder."""

    outcome: Outcome
    save: Callable[[Path], None]


def trainer_arguments(spec: OptimizationSpec, setup: TrainingSetup, *, validates: bool) -> dict[str, Any]:
    """Return the arguments shared by TRL's SFTConfig and DPOConfig, without `output_dir` and method settings."""
    tier = setup.tier
    batch, accumulation = batch_rows(spec, tier)
    cuda = tier.device == "cuda"
    return {
        "learning_rate": spec.learning_rate,
        "num_train_epochs": spec.epochs,
        "max_steps": spec.max_steps or -1,  # -1: use epochs
        "lr_scheduler_type": "constant",  # replaced by the schedule in loop.py
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "optim": "adamw_torch",
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "train_sampling_strategy": "group_by_length",  # applies to validation; training batches come from loop.py
        "remove_unused_columns": False,  # keeps `length`
        "seed": spec.seed,
        "use_cpu": not cuda,
        "fp16": cuda and tier.dtype == "float16",
        "bf16": tier.dtype == "bfloat16",
        "activation_checkpointing": cuda and tier.memory_gb < CHECKPOINT_ACTIVATIONS_BELOW_GB,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "dataloader_pin_memory": cuda,
        "eval_strategy": ("steps" if spec.validate_every else "epoch") if validates else "no",
        "eval_steps": spec.validate_every,
        "prediction_loss_only": True,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the filter would hide a diverged training
        "report_to": [],
        "disable_tqdm": True,
    }


def save_adapter(model: "PeftModel", folder: Path, base: str) -> None:
    """Save the adapter "default" as safetensors, so that equal weights give equal files on any machine.

    Sorts the lists in the configuration (PEFT stores them as sets, ordered by the process's hash seed), replaces the
    base model's path with its name, and removes PEFT's empty model card.
    """
    model.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["base_model_name_or_path"] = base
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, sort_keys=True, indent=2), "utf-8")


def new_adapter(model: "PreTrainedModel", config: "PeftConfig", seed: int) -> "PeftModel":
    """Add a new adapter to a base model, initialised with `seed`."""
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(seed)
    with suppress_peft_warning():
        return get_peft_model(model, config)  # pyright: ignore[reportReturnType]
