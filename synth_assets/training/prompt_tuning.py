"""Prompt tuning: train virtual tokens before the input of a frozen model."""

import polars as pl

from synth_assets.training.data import Example, by_split, encode_rows
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, new_adapter
from synth_assets.training.errors import TrainingError
from synth_assets.training.preconditions import check_steps
from synth_assets.training.sft import fit_sft
from synth_assets.training.specs import PromptTuningSpec


def train_prompt(base: LoadedBase, rows: pl.DataFrame, spec: PromptTuningSpec, setup: TrainingSetup) -> Trained:
    """Train a soft prompt on SFT rows (`history`, `instruction`, `response`, `split`).

    Batches are padded on the right, so that the virtual tokens directly precede the text. Rows that fit into the
    context but not together with the virtual tokens are dropped and reported.

    Raises:
        TrainingError: a validation failed, or the training diverged.
    """
    from peft import PromptTuningConfig, PromptTuningInit

    model, tokenizer = base
    (table, train), (_, validation) = (
        _drop_long_rows(part, encode_rows(part, tokenizer, setup.context_tokens), spec, setup)
        for part in by_split(rows)
    )
    check_steps(len(train), spec, setup.tier)
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=spec.virtual_tokens,
        prompt_tuning_init=PromptTuningInit[spec.initialisation],
    )
    adapted = new_adapter(model, config, spec.seed)
    expected = spec.virtual_tokens * model.config.get_text_config().hidden_size
    actual = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    if actual != expected:
        raise TrainingError(f"the soft prompt must have {expected} parameters (tokens x hidden size), got {actual}")
    return fit_sft((adapted, tokenizer), (train, validation), table, spec, setup)


def _drop_long_rows(
    rows: pl.DataFrame, examples: list[Example], spec: PromptTuningSpec, setup: TrainingSetup
) -> tuple[pl.DataFrame, list[Example]]:
    fits = [len(example) + spec.virtual_tokens <= setup.context_tokens for example in examples]
    if dropped := len(examples) - sum(fits):
        setup.progress(
            f"{setup.name}: dropped {dropped} rows that exceed the context with {spec.virtual_tokens} virtual tokens"
        )
    return rows.filter(fits), [example for example, kept in zip(examples, fits, strict=True) if kept]
