"""What all trainers share: arguments from spec and tier, the run itself, and what it leaves."""

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synth_assets.records import Tier
from synth_assets.shards import Progress
from synth_assets.training.callbacks import OVERFLOWS_IN_FLOAT16, Curve, watch
from synth_assets.training.contract import TrainingError, batch_rows, check_trained, trainable
from synth_assets.training.costs import parameter_counts, peak_memory, reset_peak_memory
from synth_assets.training.specs import OptimizationSpec

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

CHECKPOINT_ACTIVATIONS_BELOW_GB = 40.0
"""Llama-3.2-3B in bf16 with 8 rows of 2,048 tokens keeps about 30 GB of activations (costs.py)."""

SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}

LoadedBase = tuple["PreTrainedModel", "PreTrainedTokenizerBase"]
"""A base model in the tier's precision, and its tokenizer."""


@dataclass(frozen=True)
class Setting:
    """Where a training happens: the adapter's name, its base, the tier, and who is told how it goes.

    `base` is the name that the adapter's files give the base, `context_tokens` the base's longest sequence.
    """

    name: str
    base: str
    context_tokens: int
    tier: Tier
    progress: Progress


@dataclass(frozen=True)
class Outcome:
    """The measured numbers of a training.

    `tokens` are those trained on, without padding; `seconds` are of the wall and include validation, `tokens_per_s`
    leaves it out.
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


@dataclass(frozen=True)
class Trained:
    """A training that ended well: its numbers, and how to write the adapter into an empty folder."""

    outcome: Outcome
    save: Callable[[Path], None]


def trainer_arguments(spec: OptimizationSpec, setting: Setting, *, validates: bool) -> dict[str, Any]:
    """The arguments that TRL's SFTConfig and DPOConfig share; `output_dir` and the method's own are left out."""
    tier = setting.tier
    batch, accumulation = batch_rows(spec, tier)
    cuda = tier.device == "cuda"
    return {
        "learning_rate": spec.learning_rate,
        "num_train_epochs": spec.epochs,
        "lr_scheduler_type": SCHEDULERS[spec.schedule],
        "warmup_steps": spec.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "optim": "adamw_torch",
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,  # the sampler reads `length`
        "seed": spec.seed,
        "use_cpu": not cuda,
        "fp16": cuda and tier.dtype == "float16",
        "bf16": cuda and tier.dtype == "bfloat16",
        "activation_checkpointing": cuda and tier.memory_gb < CHECKPOINT_ACTIVATIONS_BELOW_GB,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "dataloader_pin_memory": cuda,
        "eval_strategy": "epoch" if validates else "no",
        "prediction_loss_only": True,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it hides the very numbers that end a training
        "report_to": [],
        "disable_tqdm": True,
    }


class WithoutTelemetry:
    """Put before a trainer of TRL: it reports its use to the hub each time it is made."""

    def _send_telemetry(self) -> None:
        return


def fit(make: "Callable[[Path], Trainer]", setting: Setting, lengths: Sequence[int]) -> Trained:
    """Train what `make` returns for a scratch folder.

    Args:
        make: builds a Trainer around a PeftModel whose adapter is called "default".
        setting: the tier, and where progress goes.
        lengths: tokens of each training sequence, for the derived peak of memory.

    Raises:
        TrainingError: a number was not finite, or the weights did not change.
    """
    from transformers import PrinterCallback

    tier = setting.tier
    curve = Curve(setting.name, setting.progress, OVERFLOWS_IN_FLOAT16 if tier.dtype == "float16" else 0)
    with tempfile.TemporaryDirectory(prefix="training-") as scratch:
        trainer = make(Path(scratch))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watch(curve))
        model: Any = trainer.model
        _keep_float32_adapters(model, tier)
        _keep_four_bit_gradients_exact(model)
        before = trainable(model)
        reset_peak_memory()
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        batch = trainer.args.per_device_train_batch_size
    if not curve.losses():
        raise TrainingError("no step was logged")
    check_trained(model, before)
    peak, kind = peak_memory(model, batch * max(lengths))
    counts = parameter_counts(model)
    outcome = Outcome(
        curve=curve.points,
        final_loss=curve.final_loss(),
        steps=len(curve.losses()),
        tokens=curve.tokens,
        tokens_per_s=curve.tokens / (seconds - curve.validation_s),
        seconds=seconds,
        trainable_parameters=counts[0],
        total_parameters=counts[1],
        peak_memory_bytes=peak,
        peak_memory_kind=kind,
    )
    return Trained(outcome, lambda folder: save_adapter(model, folder, setting.base))


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


def load_adapter(model: "PreTrainedModel", folder: Path, *, trained_further: bool = False) -> "PeftModel":
    """The base with the adapter of `folder` on it, from safetensors."""
    from peft import PeftModel

    with _peft_quieted():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trained_further, use_safetensors=True)


def new_adapter(model: "PreTrainedModel", config: "PeftConfig", seed: int) -> "PeftModel":
    """The base with a fresh adapter on it, whose random weights come from `seed`."""
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(seed)
    with _peft_quieted():
        return get_peft_model(model, config)  # pyright: ignore[reportReturnType]


@contextmanager
def _peft_quieted() -> Iterator[None]:
    """PEFT 0.21 asks a model for `is_gradient_checkpointing`, which transformers 5.23 renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _keep_four_bit_gradients_exact(model: "PeftModel") -> None:
    """Stop bitsandbytes 0.50 from repacking 4-bit weights in validation, after which gradients on a CPU are wrong."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def _keep_float32_adapters(model: "PeftModel", tier: Tier) -> None:
    """Undo TRL's cast of adapters on quantised bases to bfloat16 where the card has none (its scaler needs float32)."""
    if tier.dtype != "float16":
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
