"""What all trainers share: where they work, what they leave, arguments from spec and tier, adapters and their files."""

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
from synth_assets.training.checkpoints import Checkpoints
from synth_assets.training.preconditions import batch_rows
from synth_assets.training.specs import OptimizationSpec

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

"""Llama-3.2-3B in bf16 with 8 rows of 2,048 tokens keeps about 30 GB of activations (costs.py)."""

LoadedBase = tuple["PreTrainedModel", "PreTrainedTokenizerBase"]
"""A base model in the tier's precision, and its tokenizer."""


@dataclass(frozen=True)
class TrainingSetup:
    """Where a training happens: the adapter's name, its base, the tier, and who is told how it goes.

    `base` is the name that the adapter's files give the base, `context_tokens` the base's longest sequence. Without
    `checkpoints` nothing survives the process; `known_tokens_per_s` is what the last such training here reached.
    """

    name: str
    base: str
    context_tokens: int
    tier: Tier
    progress: Progress
    checkpoints: Checkpoints | None = None
    budget: Budget = UNLIMITED
    known_tokens_per_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The measured numbers of a training.

    `tokens` are those trained on, without padding, and `fill_rate` their share of all slots; `seconds` are of the wall
    and include validation, `tokens_per_s` leaves it out. `host_peak_bytes` is of this process (0 where the system does
    not tell), `predicted` what was expected before, `validation` what the kept weights reach on validation rows.
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
    best_step: int = 0  # whose weights were kept; 0: the last ones
    phases: list[dict[str, Any]] = field(default_factory=list)
    predicted: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """A training that ended well: its numbers, and how to write the adapter into an empty folder."""

    outcome: Outcome
    save: Callable[[Path], None]


def trainer_arguments(spec: OptimizationSpec, setting: TrainingSetup, *, validates: bool) -> dict[str, Any]:
    """The arguments that TRL's SFTConfig and DPOConfig share; `output_dir` and the method's own are left out."""
    tier = setting.tier
    batch, accumulation = batch_rows(spec, tier)
    cuda = tier.device == "cuda"
    return {
        "learning_rate": spec.learning_rate,
        "num_train_epochs": spec.epochs,
        "max_steps": spec.max_steps or -1,  # -1: by epochs
        "lr_scheduler_type": "constant",  # the loop's own schedule replaces it
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "optim": "adamw_torch",
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "train_sampling_strategy": "group_by_length",  # of validation too; training has the loop's own batches
        "remove_unused_columns": False,  # both read `length`
        "seed": spec.seed,
        "use_cpu": not cuda,
        "fp16": cuda and tier.dtype == "float16",
        "bf16": cuda and tier.dtype == "bfloat16",
        "activation_checkpointing": cuda and tier.memory_gb < CHECKPOINT_ACTIVATIONS_BELOW_GB,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "dataloader_pin_memory": cuda,
        "eval_strategy": ("steps" if spec.validate_every else "epoch") if validates else "no",
        "eval_steps": spec.validate_every,
        "prediction_loss_only": True,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it hides the very numbers that end a training
        "report_to": [],
        "disable_tqdm": True,
    }


def save_adapter(model: "PeftModel", folder: Path, base: str) -> None:
    """Write the adapter "default" alone, as safetensors, so that equal weights are equal files on any machine.

    The configuration's lists are sorted (PEFT keeps them as sets, in the order of the process's hash seed), its base
    is the name given and not where it lay, and PEFT's empty model card is left out.
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
    """The base with a fresh adapter on it, whose random weights come from `seed`."""
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(seed)
    with suppress_peft_warning():
        return get_peft_model(model, config)  # pyright: ignore[reportReturnType]
