"""Prompt tuning: a few virtual tokens before the input of a frozen model."""

import polars as pl

from synth_assets.training.data import Example, by_split, encode_rows
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, new_adapter
from synth_assets.training.errors import TrainingError
from synth_assets.training.preconditions import check_steps
from synth_assets.training.sft import fit_sft
from synth_assets.training.specs import PromptTuningSpec


def train_prompt(base: LoadedBase, rows: pl.DataFrame, spec: PromptTuningSpec, setting: TrainingSetup) -> Trained:
    """A soft prompt from SFT rows (`history`, `instruction`, `response`, `split`).

    Batches are padded on the right, so that the virtual tokens stand next to the text. Rows that fit into the context
    but not beside the virtual tokens are left out and counted in a progress line.

    Raises:
        TrainingError: the contract does not hold, or the training diverged.
    """
    from peft import PromptTuningConfig, PromptTuningInit

    model, tokenizer = base
    (table, train), (_, validation) = (
        _fitting(part, encode_rows(part, tokenizer, setting.context_tokens), spec, setting) for part in by_split(rows)
    )
    check_steps(len(train), spec, setting.tier)
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=spec.virtual_tokens,
        prompt_tuning_init=PromptTuningInit[spec.initialisation],
    )
    adapted = new_adapter(model, config, spec.seed)
    wanted = spec.virtual_tokens * model.config.get_text_config().hidden_size
    found = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    if found != wanted:
        raise TrainingError(f"the soft prompt has {found} parameters where tokens x width give {wanted}")
    return fit_sft((adapted, tokenizer), (train, validation), table, spec, setting)


def _fitting(
    rows: pl.DataFrame, examples: list[Example], spec: PromptTuningSpec, setting: TrainingSetup
) -> tuple[pl.DataFrame, list[Example]]:
    fits = [len(example) + spec.virtual_tokens <= setting.context_tokens for example in examples]
    if left_out := len(examples) - sum(fits):
        setting.progress(f"{setting.name}: {left_out} rows do not fit beside {spec.virtual_tokens} virtual tokens")
    return rows.filter(fits), [example for example, kept in zip(examples, fits, strict=True) if kept]
