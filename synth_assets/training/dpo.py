"""Direct preference optimisation of a LoRA adapter, against reference log-probabilities that were computed before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.loading import load_adapter
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.training.data import Example, PairExample, by_split, encode_pairs, pair_table
from synth_assets.training.difficulty import difficulty_of
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, trainer_arguments
from synth_assets.training.fitting import Rows, fit
from synth_assets.training.loop import Supervised
from synth_assets.training.preconditions import check_answers
from synth_assets.training.specs import DpoSpec

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.dpo_trainer import DPOTrainer

CONTROL_SFT_WEIGHT = 1.0  # of a control whose DPO run had no SFT term


def control_spec(spec: DpoSpec) -> DpoSpec:
    """The same training without preferences: DPO weight 0, the SFT term on the chosen answers alone."""
    return replace(spec, dpo_weight=0.0, sft_weight=spec.sft_weight or CONTROL_SFT_WEIGHT)


def train_dpo(
    base: LoadedBase,
    adapter: Path,
    data: tuple[pl.DataFrame, pl.DataFrame],
    spec: DpoSpec,
    setting: TrainingSetup,
) -> Trained:
    """The LoRA adapter of folder `adapter`, trained further on preference pairs.

    Args:
        base: the model that the adapter was trained on, and its tokenizer.
        adapter: where the adapter lies; it is the reference of the preference loss.
        data: PAIRS with their split, and REFERENCE_LOGPROBS of them under `adapter`.
        spec: losses and optimiser.
        setting: the tier, and where progress goes.

    Raises:
        TrainingError: the contract does not hold, or the training diverged.
    """
    (model, tokenizer), (pairs, reference) = base, data
    train, validation = (encode_pairs(part, tokenizer, setting.context_tokens) for part in by_split(pairs))
    check_answers(answer for pair in (*train, *validation) for answer in (pair.chosen, pair.rejected))
    adapted = load_adapter(model, adapter, is_trainable=True)
    columns = reference.select(REFERENCE_LOGPROBS.names())
    known = {pair_id: (chosen, rejected) for pair_id, chosen, rejected in columns.iter_rows()}
    rows = Rows(
        [len(pair.prompt) + len(answer) for pair in train for answer in (pair.chosen, pair.rejected)],
        [Example(pair.prompt, pair.chosen) for pair in validation],
        difficulty_of(spec, (adapted, tokenizer), [Example(p.prompt, p.chosen) for p in train], by_split(pairs)[0]),
        sequences=2,
    )
    return fit(
        lambda spec, scratch: _trainer((adapted, tokenizer), (train, validation), known, (spec, setting), scratch),
        spec,
        setting,
        rows,
    )


def preference_losses(spec: DpoSpec) -> tuple[list[str], list[float]]:
    """(names, weights) of TRL's loss terms; those of weight 0 are left out.

    With label smoothing the sigmoid loss is TRL's "robust": its "sigmoid" ignores the smoothing.
    """
    preference = "robust" if spec.label_smoothing else spec.loss
    terms = [(preference, spec.dpo_weight), ("sft", spec.sft_weight)]
    return [name for name, weight in terms if weight], [weight for _, weight in terms if weight]


def _trainer(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: tuple[Sequence[PairExample], Sequence[PairExample]],
    reference: Mapping[str, tuple[float, float]],
    how: tuple[DpoSpec, TrainingSetup],
    scratch: Path,
) -> "DPOTrainer":
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class PairTrainer(Supervised, DPOTrainer):
        """TRL's trainer, on pairs that are token ids already and know their reference log-probabilities."""

        def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
            return dataset

        def _precompute_ref_logps(self, dataset: Dataset, *_: object) -> Dataset:
            return dataset

    model, tokenizer = adapted
    (train, validation), (spec, setting) = examples, how
    losses, weights = preference_losses(spec)
    arguments = DPOConfig(
        output_dir=str(scratch),
        beta=spec.beta,
        loss_type=losses,  # pyright: ignore[reportArgumentType]
        loss_weights=weights,
        label_smoothing=spec.label_smoothing,
        precompute_ref_log_probs=True,
        max_length=None,  # longer pairs were refused
        **trainer_arguments(spec, setting, validates=bool(validation)),
    )
    trainer = PairTrainer(
        model=model,
        args=arguments,
        train_dataset=pair_table(train, reference),
        eval_dataset=pair_table(validation, reference) if validation else None,
        processing_class=tokenizer,
    )
    model.delete_adapter("ref")  # the copy that TRL makes to compute what `reference` holds
    return trainer
