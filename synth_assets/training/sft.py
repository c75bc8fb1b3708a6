"""Supervised fine-tuning of LoRA adapters: new ones on SFT rows, or continued ones on the best of k responses."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.costs import parameter_counts
from synth_assets.llm.loading import load_adapter
from synth_assets.training.data import Example, best_responses, by_split, encode_rows, sft_table
from synth_assets.training.difficulty import row_difficulty
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, new_adapter, trainer_arguments
from synth_assets.training.errors import TrainingError
from synth_assets.training.fitting import Rows, fit
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.preconditions import (
    batch_rows,
    check_answers,
    check_targets,
    stores_inputs_first,
)
from synth_assets.training.specs import LoraSpec, OptimizationSpec, RejectionSamplingSpec
from synth_assets.training.trl_private import sft_trainer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer

FLASH = "flash_attention_2"


def train_lora(base: LoadedBase, rows: pl.DataFrame, spec: LoraSpec, setup: TrainingSetup) -> Trained:
    """Train a new LoRA adapter on SFT rows (`history`, `instruction`, `response`, `split`).

    Raises:
        TrainingError: a validation failed, or the training diverged.
    """
    from peft import LoraConfig

    model, tokenizer = base
    expected = check_targets(model, spec)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.target_modules),
        fan_in_fan_out=stores_inputs_first(model, spec.target_modules),
        task_type="CAUSAL_LM",
    )
    adapted = new_adapter(model, config, spec.seed)
    actual, _ = parameter_counts(adapted)
    if actual != expected:
        raise TrainingError(f"LoRA must have {expected} trainable parameters by rank and layer sizes, got {actual}")
    train, validation = by_split(rows)
    examples = tuple(encode_rows(part, tokenizer, setup.context_tokens) for part in (train, validation))
    return fit_sft((adapted, tokenizer), examples, train, spec, setup)


def train_on_best(
    base: LoadedBase, adapter: Path, pairs: pl.DataFrame, spec: RejectionSamplingSpec, setup: TrainingSetup
) -> Trained:
    """Continue training the LoRA adapter in folder `adapter` on the best response to each instruction of `pairs`.

    Raises:
        TrainingError: a validation failed, or the training diverged.
    """
    model, tokenizer = base
    train, validation = by_split(best_responses(pairs))
    examples = tuple(encode_rows(part, tokenizer, setup.context_tokens) for part in (train, validation))
    adapted = load_adapter(model, adapter, is_trainable=True)
    return fit_sft((adapted, tokenizer), examples, train, spec, setup)


def fit_sft(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: tuple[Sequence[Example], ...],
    table: pl.DataFrame,
    spec: OptimizationSpec,
    setup: TrainingSetup,
) -> Trained:
    """Train an adapter with the cross entropy of the answers.

    By default batches group rows of similar length. On tiers that pack rows, and with attention that keeps packed rows
    separate, rows are packed instead.

    Args:
        adapted: the model with the adapter, and its tokenizer.
        examples: training and validation examples.
        table: the training rows, for a curriculum.
        spec: optimiser settings.
        setup: tier, progress, checkpoints and budget.
    """
    train, validation = examples
    check_answers(example.answer for example in (*train, *validation))
    notes = [] if uses_packing(adapted[0], spec, setup) else packing_notes(adapted[0], spec, setup)
    notes += attention_notes(adapted[0], setup)
    rows = Rows(_lengths(train), validation, row_difficulty(spec, adapted, train, table), notes)
    return fit(lambda spec, scratch: _trainer(adapted, (train, validation), spec, setup, scratch), spec, setup, rows)


def _lengths(examples: Sequence[Example]) -> list[int]:
    return [len(example) for example in examples]


def _trainer(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: tuple[Sequence[Example], Sequence[Example]],
    spec: OptimizationSpec,
    setup: TrainingSetup,
    scratch: Path,
) -> "SFTTrainer":
    from trl.trainer.sft_config import SFTConfig

    model, tokenizer = adapted
    train, validation = examples
    packing = uses_packing(model, spec, setup)
    common = trainer_arguments(spec, setup, validates=bool(validation))
    arguments = SFTConfig(
        output_dir=str(scratch),
        packing=packing,
        eval_packing=False,
        dataset_kwargs={"skip_prepare_dataset": not packing},
        **{**common, "max_length": None, **(packed_batches(_lengths(train), spec, setup) if packing else {})},
    )
    return sft_trainer(TrainerMixin)(
        model=model,
        args=arguments,
        train_dataset=sft_table(train),
        eval_dataset=sft_table(validation) if validation else None,
        processing_class=tokenizer,
    )


def packed_batches(lengths: Sequence[int], spec: OptimizationSpec, setup: TrainingSetup) -> dict[str, int]:
    """Return Trainer arguments that replace each batch with one sequence of the batch's mean total length.

    A step sees about as many rows as without packing, and no row is truncated.
    """
    batch, _ = batch_rows(spec, setup.tier)
    mean = math.ceil(batch * sum(lengths) / len(lengths))
    return {"per_device_train_batch_size": 1, "max_length": max(mean, *lengths)}


def uses_packing(model: "PeftModel", spec: OptimizationSpec, setup: TrainingSetup) -> bool:
    """Return whether rows are packed: the spec or the tier asks for it, and attention keeps packed rows separate.

    Raises:
        TrainingError: the spec asks for packing, but with this attention or a soft prompt rows would attend to each
            other.
    """
    attention, virtual = _attention(model), model.active_peft_config.is_prompt_learning
    exact = attention == FLASH and not virtual
    if spec.order == "packed" and not exact:
        raise TrainingError(
            f"packing needs {FLASH}, which keeps packed rows separate, and an adapter without virtual tokens; "
            f"got attention {attention}: set order to length instead"
        )
    return exact and (spec.order == "packed" or _tier_packs(spec, setup))


def packing_notes(model: "PeftModel", spec: OptimizationSpec, setup: TrainingSetup) -> list[str]:
    """Return a note if rows are grouped by length although the tier packs rows, else nothing."""
    if not _tier_packs(spec, setup):
        return []
    attention = _attention(model)
    reason = "an adapter with virtual tokens" if attention == FLASH else f"the attention {attention}, not {FLASH}"
    return [f"the tier packs rows, but this training has {reason}: grouping rows by length instead"]


def attention_notes(model: "PeftModel", setup: TrainingSetup) -> list[str]:
    """Return a note if the model or the installed libraries do not support the tier's attention, else nothing."""
    attention = _attention(model)
    if attention == setup.tier.attention:
        return []
    return [f"using attention {attention}: the tier's {setup.tier.attention} is not available for this model"]


def _tier_packs(spec: OptimizationSpec, setup: TrainingSetup) -> bool:
    return spec.order == "length" and not spec.batch_tokens and setup.tier.grouping == "packing"


def _attention(model: "PeftModel") -> str:
    return str(model.config.get_text_config()._attn_implementation)
