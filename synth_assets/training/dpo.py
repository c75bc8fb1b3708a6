"""Direct preference optimisation (DPO) of a LoRA adapter against precomputed reference log-probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.loading import load_adapter
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.training.data import Example, PairExample, by_split, encode_pairs, pair_table
from synth_assets.training.difficulty import row_difficulty
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, trainer_arguments
from synth_assets.training.fitting import Rows, fit
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.preconditions import check_answers
from synth_assets.training.specs import DpoSpec
from synth_assets.training.trl_private import delete_reference_adapter, dpo_trainer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.dpo_trainer import DPOTrainer

CONTROL_SFT_WEIGHT = 1.0  # SFT weight of the control if the DPO run has no SFT term


def control_spec(spec: DpoSpec) -> DpoSpec:
    """Return the spec of the control: the same training with DPO weight 0 and only the SFT term on chosen answers."""
    return replace(spec, dpo_weight=0.0, sft_weight=spec.sft_weight or CONTROL_SFT_WEIGHT)


def train_dpo(
    base: LoadedBase,
    adapter: Path,
    data: tuple[pl.DataFrame, pl.DataFrame],
    spec: DpoSpec,
    setup: TrainingSetup,
) -> Trained:
    """Continue training the LoRA adapter in folder `adapter` on preference pairs.

    Args:
        base: the model that the adapter was trained on, and its tokenizer.
        adapter: folder of the adapter, which is also the reference of the preference loss.
        data: PAIRS with their split, and their REFERENCE_LOGPROBS under `adapter`.
        spec: losses and optimiser.
        setup: tier, progress, checkpoints and budget.

    Raises:
        TrainingError: a validation failed, or the training diverged.
    """
    (model, tokenizer), (pairs, reference) = base, data
    train, validation = (encode_pairs(part, tokenizer, setup.context_tokens) for part in by_split(pairs))
    check_answers(answer for pair in (*train, *validation) for answer in (pair.chosen, pair.rejected))
    adapted = load_adapter(model, adapter, is_trainable=True)
    columns = reference.select(REFERENCE_LOGPROBS.names())
    logprobs = {pair_id: (chosen, rejected) for pair_id, chosen, rejected in columns.iter_rows()}
    rows = Rows(
        [len(pair.prompt) + len(answer) for pair in train for answer in (pair.chosen, pair.rejected)],
        [Example(pair.prompt, pair.chosen) for pair in validation],
        row_difficulty(spec, (adapted, tokenizer), [Example(p.prompt, p.chosen) for p in train], by_split(pairs)[0]),
        sequences=2,
    )
    return fit(
        lambda spec, scratch: _trainer((adapted, tokenizer), (train, validation), logprobs, (spec, setup), scratch),
        spec,
        setup,
        rows,
    )


def preference_losses(spec: DpoSpec) -> tuple[list[str], list[float]]:
    """Return (names, weights) of TRL's loss terms, without those of weight 0.

    With label smoothing the sigmoid loss is TRL's "robust", because TRL's "sigmoid" ignores the smoothing.
    """
    preference = "robust" if spec.label_smoothing else spec.loss
    terms = [(preference, spec.dpo_weight), ("sft", spec.sft_weight)]
    return [name for name, weight in terms if weight], [weight for _, weight in terms if weight]


def _trainer(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: tuple[Sequence[PairExample], Sequence[PairExample]],
    reference: Mapping[str, tuple[float, float]],
    options: tuple[DpoSpec, TrainingSetup],
    scratch: Path,
) -> "DPOTrainer":
    from trl.trainer.dpo_config import DPOConfig

    model, tokenizer = adapted
    (train, validation), (spec, setup) = examples, options
    losses, weights = preference_losses(spec)
    arguments = DPOConfig(
        output_dir=str(scratch),
        beta=spec.beta,
        loss_type=losses,  # pyright: ignore[reportArgumentType]
        loss_weights=weights,
        label_smoothing=spec.label_smoothing,
        precompute_ref_log_probs=True,
        max_length=None,  # encode_pairs has rejected longer pairs
        **trainer_arguments(spec, setup, validates=bool(validation)),
    )
    trainer = dpo_trainer(TrainerMixin)(
        model=model,
        args=arguments,
        train_dataset=pair_table(train, reference),
        eval_dataset=pair_table(validation, reference) if validation else None,
        processing_class=tokenizer,
    )
    delete_reference_adapter(model)  # `reference` already contains its log-probabilities
    return trainer
