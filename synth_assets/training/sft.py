"""Supervised fine-tuning of LoRA adapters: a new one on the SFT rows, or a further step on the best of k responses."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.costs import parameter_counts
from synth_assets.llm.loading import load_adapter
from synth_assets.training.data import Example, best_responses, by_split, encode_rows, sft_table
from synth_assets.training.difficulty import difficulty_of
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, new_adapter, trainer_arguments
from synth_assets.training.errors import TrainingError
from synth_assets.training.fitting import Rows, fit
from synth_assets.training.loop import Supervised
from synth_assets.training.preconditions import (
    batch_rows,
    check_answers,
    check_targets,
    stores_inputs_first,
)
from synth_assets.training.specs import LoraSpec, OptimizationSpec, RejectionSamplingSpec

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer

FLASH = "flash_attention_2"


def train_lora(base: LoadedBase, rows: pl.DataFrame, spec: LoraSpec, setting: TrainingSetup) -> Trained:
    """A new LoRA adapter from SFT rows (`history`, `instruction`, `response`, `split`).

    Raises:
        TrainingError: the contract does not hold, or the training diverged.
    """
    from peft import LoraConfig

    model, tokenizer = base
    wanted = check_targets(model, spec)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.target_modules),
        fan_in_fan_out=stores_inputs_first(model, spec.target_modules),
        task_type="CAUSAL_LM",
    )
    adapted = new_adapter(model, config, spec.seed)
    found, _ = parameter_counts(adapted)
    if found != wanted:
        raise TrainingError(f"LoRA has {found} trainable parameters where rank and shapes give {wanted}")
    train, validation = by_split(rows)
    examples = tuple(encode_rows(part, tokenizer, setting.context_tokens) for part in (train, validation))
    return fit_sft((adapted, tokenizer), examples, train, spec, setting)


def train_on_best(
    base: LoadedBase, adapter: Path, pairs: pl.DataFrame, spec: RejectionSamplingSpec, setting: TrainingSetup
) -> Trained:
    """The LoRA adapter of folder `adapter`, trained further on the best response to each instruction of `pairs`.

    Raises:
        TrainingError: the contract does not hold, or the training diverged.
    """
    model, tokenizer = base
    train, validation = by_split(best_responses(pairs))
    examples = tuple(encode_rows(part, tokenizer, setting.context_tokens) for part in (train, validation))
    adapted = load_adapter(model, adapter, is_trainable=True)
    return fit_sft((adapted, tokenizer), examples, train, spec, setting)


def fit_sft(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: tuple[Sequence[Example], ...],
    table: pl.DataFrame,
    spec: OptimizationSpec,
    setting: TrainingSetup,
) -> Trained:
    """Train the adapter on the base under cross entropy of the answers.

    Batches are grouped by length unless the spec says otherwise; where the tier packs and attention is exact for packed
    rows, they are packed.

    Args:
        adapted: the model and its tokenizer.
        examples: for training, and for validation.
        table: the training rows, for a curriculum.
        spec: the optimiser.
        setting: the tier, and where progress goes.
    """
    train, validation = examples
    check_answers(example.answer for example in (*train, *validation))
    notes = [] if packs(adapted[0], spec, setting) else why_not_packed(adapted[0], spec, setting)
    notes += other_attention(adapted[0], setting)
    rows = Rows(_lengths(train), validation, difficulty_of(spec, adapted, train, table), notes)
    return fit(
        lambda spec, scratch: _trainer(adapted, (train, validation), spec, setting, scratch), spec, setting, rows
    )


def _lengths(examples: Sequence[Example]) -> list[int]:
    return [len(example) for example in examples]


def _trainer(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: tuple[Sequence[Example], Sequence[Example]],
    spec: OptimizationSpec,
    setting: TrainingSetup,
    scratch: Path,
) -> "SFTTrainer":
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class ResponseTrainer(Supervised, SFTTrainer):
        """TRL's trainer, on rows that carry their own labels."""

    model, tokenizer = adapted
    train, validation = examples
    packing = packs(model, spec, setting)
    common = trainer_arguments(spec, setting, validates=bool(validation))
    arguments = SFTConfig(
        output_dir=str(scratch),
        packing=packing,
        eval_packing=False,
        dataset_kwargs={"skip_prepare_dataset": not packing},
        **{**common, "max_length": None, **(packed_batches(_lengths(train), spec, setting) if packing else {})},
    )
    return ResponseTrainer(
        model=model,
        args=arguments,
        train_dataset=sft_table(train),
        eval_dataset=sft_table(validation) if validation else None,
        processing_class=tokenizer,
    )


def packed_batches(lengths: Sequence[int], spec: OptimizationSpec, setting: TrainingSetup) -> dict[str, int]:
    """One sequence instead of each batch, as long as the batch's rows are together on average.

    So a step sees about as many rows as without packing, and no row is cut.
    """
    batch, _ = batch_rows(spec, setting.tier)
    mean = math.ceil(batch * sum(lengths) / len(lengths))
    return {"per_device_train_batch_size": 1, "max_length": max(mean, *lengths)}


def packs(model: "PeftModel", spec: OptimizationSpec, setting: TrainingSetup) -> bool:
    """Whether several rows share a sequence: where the spec or the tier asks for it and attention keeps them apart.

    Raises:
        TrainingError: the spec asks for packing, and this attention or a soft prompt would let rows see each other.
    """
    attention, virtual = _attention(model), model.active_peft_config.is_prompt_learning
    exact = attention == FLASH and not virtual
    if spec.order == "packed" and not exact:
        raise TrainingError(
            f"packing needs {FLASH}, which keeps packed rows apart, and an adapter without virtual tokens; "
            f"the attention here is {attention}: order the rows by length instead"
        )
    return exact and (spec.order == "packed" or _left_to_the_tier(spec, setting))


def why_not_packed(model: "PeftModel", spec: OptimizationSpec, setting: TrainingSetup) -> list[str]:
    """What to tell of rows that are grouped by length although the tier would pack them; empty where it would not."""
    if not _left_to_the_tier(spec, setting):
        return []
    attention = _attention(model)
    reason = "an adapter with virtual tokens" if attention == FLASH else f"the attention {attention}, not {FLASH}"
    return [f"the tier packs rows, this training has {reason}: rows of like length are grouped instead"]


def other_attention(model: "PeftModel", setting: TrainingSetup) -> list[str]:
    """Return a note where the model's architecture or the installed libraries lack the tier's attention."""
    attention = _attention(model)
    if attention == setting.tier.attention:
        return []
    return [f"attention is {attention}: the tier's {setting.tier.attention} is not available for this model here"]


def _left_to_the_tier(spec: OptimizationSpec, setting: TrainingSetup) -> bool:
    return spec.order == "length" and not spec.batch_tokens and setting.tier.grouping == "packing"


def _attention(model: "PeftModel") -> str:
    return str(model.config.get_text_config()._attn_implementation)
