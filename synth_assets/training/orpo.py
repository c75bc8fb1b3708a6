"""Odds-ratio preference optimisation (ORPO): a new LoRA adapter trained on preference pairs without a reference."""

from dataclasses import replace

import polars as pl

from synth_assets.training.data import Example, by_split, encode_pairs, pair_table
from synth_assets.training.difficulty import row_difficulty
from synth_assets.training.dpo import pair_trainer
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, trainer_arguments
from synth_assets.training.fitting import Rows, fit
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.pair_losses import odds_ratio_loss
from synth_assets.training.preconditions import check_answers
from synth_assets.training.sft import new_lora
from synth_assets.training.specs import OrpoSpec
from synth_assets.training.trl_private import pair_loss_trainer

NO_REFERENCE = (0.0, 0.0)


def control_spec(spec: OrpoSpec) -> OrpoSpec:
    """Return the spec of the control: supervised fine-tuning on the chosen responses, without the odds-ratio loss."""
    return replace(spec, odds_weight=0.0)


def train_orpo(base: LoadedBase, pairs: pl.DataFrame, spec: OrpoSpec, setup: TrainingSetup) -> Trained:
    """Train a new LoRA adapter on PAIRS with their split.

    Raises:
        TrainingError: a validation failed, or the training diverged.
    """
    adapted = new_lora(base, spec)
    train, validation = (encode_pairs(part, adapted[1], setup.context_tokens) for part in by_split(pairs))
    check_answers(answer for pair in (*train, *validation) for answer in (pair.chosen, pair.rejected))
    table, validation_table = (
        pair_table(part, {pair.pair_id: NO_REFERENCE for pair in part}) if part else None
        for part in (train, validation)
    )
    rows = Rows(
        [len(pair.prompt) + len(answer) for pair in train for answer in (pair.chosen, pair.rejected)],
        [Example(pair.prompt, pair.chosen) for pair in validation],
        row_difficulty(spec, adapted, [Example(pair.prompt, pair.chosen) for pair in train], by_split(pairs)[0]),
        sequences=2,
    )
    kind = pair_loss_trainer(TrainerMixin, odds_ratio_loss(spec.odds_weight))
    return fit(
        lambda spec, scratch: pair_trainer(
            kind,
            adapted,
            (table, validation_table),
            trainer_arguments(spec, setup, validates=bool(validation)),
            scratch,
        ),
        spec,
        setup,
        rows,
    )
