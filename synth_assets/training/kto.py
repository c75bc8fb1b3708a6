"""Kahneman-Tversky optimisation (KTO) of a LoRA adapter on responses that are labelled desirable or undesirable."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.loading import load_adapter
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.training.data import Example, by_split, encode_rows
from synth_assets.training.difficulty import row_difficulty
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, trainer_arguments
from synth_assets.training.errors import TrainingError
from synth_assets.training.fitting import Rows, fit
from synth_assets.training.logprobs import BATCH_FACTOR, answer_logprobs
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.memory import ADVICE
from synth_assets.training.preconditions import batch_rows, check_answers
from synth_assets.training.specs import KtoSpec
from synth_assets.training.trl_private import delete_reference_adapter, kto_trainer

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.kto_trainer import KTOTrainer


@dataclass(frozen=True)
class LabelledExample:
    """A response with its label, and a response to another prompt that estimates the KL term.

    Attributes:
        example: prompt and response.
        desirable: the label.
        reference: log-probability of the response under the reference, in nats.
        mismatched: the same prompt and the response to another prompt.
        mismatched_reference: log-probability of that response under the reference, in nats.
    """

    example: Example
    desirable: bool
    reference: float
    mismatched: Example
    mismatched_reference: float


def labelled_responses(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return both responses of each pair as rows: all chosen ones (`desirable`), then all rejected ones."""
    sides = [
        pairs.select(
            "pair_id",
            "row_id",
            "history",
            "instruction",
            pl.col(side).alias("response"),
            pl.lit(value=side == "chosen").alias("desirable"),
            "split",
        )
        for side in ("chosen", "rejected")
    ]
    return pl.concat(sides)


def train_kto(
    base: LoadedBase, adapter: Path, data: tuple[pl.DataFrame, pl.DataFrame], spec: KtoSpec, setup: TrainingSetup
) -> Trained:
    """Continue training the LoRA adapter in folder `adapter` on both responses of preference pairs, as labelled rows.

    Args:
        base: the model that the adapter was trained on, and its tokenizer.
        adapter: folder of the adapter, which is also the reference.
        data: PAIRS with their split, and their REFERENCE_LOGPROBS under `adapter`.
        spec: weights and optimiser.
        setup: tier, progress, checkpoints and budget.

    Raises:
        TrainingError: a validation failed, or the training diverged.
    """
    (model, tokenizer), (pairs, reference) = base, data
    adapted = load_adapter(model, adapter, is_trainable=True)
    table, logprobs = labelled_responses(pairs), _reference_of(reference)
    train, validation = (_encode(part, logprobs, (adapted, tokenizer), setup) for part in by_split(table))
    examples = [row.example for row in train]
    rows = Rows(
        [len(example) for example in examples],
        [row.example for row in validation if row.desirable],
        row_difficulty(spec, (adapted, tokenizer), examples, by_split(table)[0]),
    )
    return fit(
        lambda spec, scratch: _trainer((adapted, tokenizer), (train, validation), (spec, setup), scratch),
        spec,
        setup,
        rows,
    )


def mismatched_examples(examples: Sequence[Example], context_tokens: int) -> list[Example]:
    """Return each prompt with the response of the next example that has another prompt and fits the context.

    The KL term of Ethayarajh et al. 2024, eq. 7, is estimated on such pairs.

    Raises:
        TrainingError: a prompt has no such response.
    """
    count, mismatched = len(examples), []
    for index, example in enumerate(examples):
        following = (examples[(index + step) % count] for step in range(1, count))
        fitting = (
            other.answer
            for other in following
            if other.prompt != example.prompt and len(example.prompt) + len(other.answer) <= context_tokens
        )
        answer = next(fitting, None)
        if answer is None:
            raise TrainingError(
                f"KTO estimates its KL term on a response to another instruction; after a prompt of "
                f"{len(example.prompt)} tokens none fits the context of {context_tokens} tokens"
            )
        mismatched.append(Example(example.prompt, answer))
    return mismatched


def _reference_of(reference: pl.DataFrame) -> dict[tuple[str, bool], float]:
    """Return the log-probability of each response by (pair, is it the chosen one)."""
    rows = reference.select(REFERENCE_LOGPROBS.names()).iter_rows()
    return {(pair, side): value for pair, *both in rows for side, value in zip((True, False), both, strict=True)}


def _encode(
    table: pl.DataFrame,
    reference: dict[tuple[str, bool], float],
    policy: "tuple[PeftModel, PreTrainedTokenizerBase]",
    setup: TrainingSetup,
) -> list[LabelledExample]:
    """Tokenise labelled rows and compute what the untrained policy, the reference, gives to mismatched responses."""
    model, tokenizer = policy
    keys = list(table.select("pair_id", "desirable").iter_rows())
    if missing := [pair for pair, side in keys if (pair, side) not in reference]:
        raise TrainingError(f"{len(set(missing))} pairs have no reference log-probabilities, such as {missing[0]}")
    examples = encode_rows(table, tokenizer, setup.context_tokens)
    check_answers(example.answer for example in examples)
    mismatched = mismatched_examples(examples, setup.context_tokens)
    sums = answer_logprobs(model, mismatched, setup.tier.batch_size * BATCH_FACTOR)
    return [
        LabelledExample(example, key[1], reference[key], other, total)
        for example, key, other, total in zip(examples, keys, mismatched, sums, strict=True)
    ]


def labelled_table(rows: Sequence[LabelledExample]) -> "Dataset":
    """Build a dataset for TRL's KTOTrainer, with `length`."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "prompt_ids": [row.example.prompt for row in rows],
            "completion_ids": [row.example.answer for row in rows],
            "KL_completion_ids": [row.mismatched.answer for row in rows],
            "label": [row.desirable for row in rows],
            "ref_logps": [row.reference for row in rows],
            "ref_KL_logps": [row.mismatched_reference for row in rows],
            "length": [len(row.example) for row in rows],
        }
    )


def _trainer(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: tuple[Sequence[LabelledExample], Sequence[LabelledExample]],
    options: tuple[KtoSpec, TrainingSetup],
    scratch: Path,
) -> "KTOTrainer":
    from trl.trainer.kto_config import KTOConfig

    (model, tokenizer), (spec, setup) = adapted, options
    if batch_rows(spec, setup.tier)[0] == 1:
        raise TrainingError(f"KTO needs at least 2 rows in a forward pass to estimate its KL term, got 1: {ADVICE}")
    train, validation = (labelled_table(part) if part else None for part in examples)
    arguments = {
        **trainer_arguments(spec, setup, validates=validation is not None),
        "train_sampling_strategy": "sequential",  # of the validation; training batches come from loop.py
    }
    trainer = kto_trainer(TrainerMixin)(
        model=model,
        args=KTOConfig(
            output_dir=str(scratch),
            beta=spec.beta,
            desirable_weight=spec.desirable_weight,
            undesirable_weight=spec.undesirable_weight,
            precompute_ref_log_probs=True,
            max_length=None,  # longer rows have been rejected
            **arguments,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
    delete_reference_adapter(model)  # `reference` already contains its log-probabilities
    return trainer
