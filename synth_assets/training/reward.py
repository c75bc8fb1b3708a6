"""Train a reward model: a LoRA adapter and one linear head on the base model, merged and stored as a classifier."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import fingerprint
from synth_assets.storage.manifests import content_hash
from synth_assets.training.adapter_store import Recipe, StoredAdapter, last_tokens_per_s, load_or_train
from synth_assets.training.data import PairExample, encode_pairs
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup, new_adapter, trainer_arguments
from synth_assets.training.errors import TrainingError
from synth_assets.training.fitting import Rows, fit
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.plan import TrainingContext, checkpoints_for, numeric_settings
from synth_assets.training.preconditions import (
    batch_rows,
    check_answers,
    check_precision,
    check_steps,
    check_targets,
    stores_inputs_first,
)
from synth_assets.training.specs import RewardSpec
from synth_assets.training.trl_private import reward_trainer

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.reward_trainer import RewardTrainer

REWARD = "reward"
REWARD_VERSION = 1
"""Version of the code that trains reward models, like `Method.version`."""
REWARD_CODE_VERSION = fingerprint(REWARD, REWARD_VERSION)  # Dagster's code version of the asset
HEAD = "score"  # name of the linear head in Transformers' classifiers of causal architectures
UNUSED_SETTINGS = (
    *("order", "difficulty", "validate_every", "stop_patience", "stop_threshold", "keep_best", "scored_rows"),
)
"""Fields of RewardSpec without an effect: no row is used for validation during the training."""


def train_or_load_reward(
    request: tuple[RewardSpec, ModelRecord, pl.DataFrame],
    context: TrainingContext,
    load: Callable[[], LoadedBase],
    *,
    force: bool = False,
) -> StoredAdapter:
    """Return the stored reward model of a request, training it if the store does not have it.

    Args:
        request: settings, base model, and the PAIRS to train on; their column `split` is ignored.
        context: where it is trained; its `store` is the folder of reward models.
        load: loads the base model, not quantised, and its tokenizer.
        force: train again although it exists.

    Raises:
        TrainingError: a validation failed, the training diverged, or it would exceed its budget.
    """
    spec, base, rows = request
    batch, accumulation = batch_rows(spec, context.tier)
    spec = replace(spec, batch_size=batch, accumulation=accumulation)
    recipe = _recipe(spec, base, rows, context)
    setup = replace(
        context.setup(REWARD, base),
        checkpoints=checkpoints_for(recipe, context),
        expected_tokens_per_s=last_tokens_per_s(context.store, recipe),
    )

    def train() -> Trained:
        check_precision(setup.tier)
        check_steps(rows.height, spec, setup.tier)
        return train_reward(load(), rows, spec, setup)

    if force and setup.checkpoints:
        setup.checkpoints.clear()
    stored = load_or_train(context.store, recipe, train, force=force)
    if setup.checkpoints:
        setup.checkpoints.clear()
    return stored


def train_reward(base: LoadedBase, pairs: pl.DataFrame, spec: RewardSpec, setup: TrainingSetup) -> Trained:
    """Train a reward model on all pairs (`history`, `instruction`, `chosen`, `rejected`).

    Raises:
        TrainingError: a validation failed, or the training diverged.
    """
    model, tokenizer = base
    examples = encode_pairs(pairs, tokenizer, setup.context_tokens)
    check_answers(answer for pair in examples for answer in (pair.chosen, pair.rejected))
    adapted = _adapted(classifier_of(model, spec.seed), spec)
    lengths = [len(pair.prompt) + len(answer) for pair in examples for answer in (pair.chosen, pair.rejected)]
    trained = fit(
        lambda spec, scratch: _trainer((adapted, tokenizer), examples, spec, setup, scratch),
        spec,
        setup,
        Rows(lengths, sequences=2),
    )
    return replace(trained, save=lambda folder: _save_classifier(adapted, tokenizer, folder))


def classifier_of(model: "PreTrainedModel", seed: int) -> "PreTrainedModel":
    """Return a sequence classifier with one label around the body of a causal language model, which it shares.

    The head is initialised with `seed` and stays in float32 under autocast: bfloat16 has 8 significant bits, so that
    rewards of similar answers would be equal.

    Raises:
        TrainingError: Transformers has no classifier with a head named HEAD for this architecture.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    body: Any = model.base_model
    model.config.num_labels = 1
    try:
        with torch.device("meta"):
            network: Any = AutoModelForSequenceClassification.from_config(model.config)
    except ValueError as error:
        raise TrainingError(f"Transformers has no sequence classifier for {model.config.model_type}") from error
    prefix = network.base_model_prefix
    if not hasattr(network, HEAD) or type(getattr(network, prefix)) is not type(body):
        raise TrainingError(
            f"the classifier of {model.config.model_type} must be the language model's body and a head {HEAD!r}: "
            "choose another base"
        )
    setattr(network, prefix, body)
    set_seed(seed)
    setattr(network, HEAD, _float32_head(body.get_input_embeddings().embedding_dim, model.config, body.device))
    return network


def _float32_head(width: int, config: Any, device: Any) -> "nn.Linear":  # noqa: ANN401 - Transformers' config
    import torch
    from torch import nn

    class Float32Head(nn.Linear):
        """A linear layer that computes in float32."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
            with torch.autocast(input.device.type, enabled=False):
                return nn.functional.linear(input.float(), self.weight.float())

    head = Float32Head(width, 1, bias=False, dtype=torch.float32)
    nn.init.normal_(head.weight, std=getattr(config.get_text_config(), "initializer_range", None) or 0.02)
    return head.to(device)


def _adapted(network: "PreTrainedModel", spec: RewardSpec) -> "PeftModel":
    from peft import LoraConfig

    check_targets(network, spec)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.target_modules),
        fan_in_fan_out=stores_inputs_first(network, spec.target_modules),
        modules_to_save=[HEAD],
        task_type="SEQ_CLS",
    )
    return new_adapter(network, config, spec.seed)


def _trainer(
    adapted: "tuple[PeftModel, PreTrainedTokenizerBase]",
    examples: Sequence[PairExample],
    spec: RewardSpec,
    setup: TrainingSetup,
    scratch: Path,
) -> "RewardTrainer":
    from trl.trainer.reward_config import RewardConfig

    model, tokenizer = adapted
    arguments = RewardConfig(
        output_dir=str(scratch),
        center_rewards_coefficient=spec.center or None,
        disable_dropout=False,  # TRL's default would disable the dropout of LoRA too
        max_length=None,  # encode_pairs has rejected longer pairs
        **trainer_arguments(spec, setup, validates=False),
    )
    return reward_trainer(TrainerMixin)(
        model=model, args=arguments, train_dataset=_table(examples), processing_class=tokenizer
    )


def _table(examples: Sequence[PairExample]) -> "Dataset":
    """Build a dataset with whole sequences as `chosen_ids` and `rejected_ids`, and `length`."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "chosen_ids": [pair.prompt + pair.chosen for pair in examples],
            "rejected_ids": [pair.prompt + pair.rejected for pair in examples],
            "length": [len(pair) for pair in examples],
        }
    )


def _save_classifier(adapted: "PeftModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Merge the adapter and save a complete classifier: configuration, safetensors, tokenizer and chat template."""
    merged: Any = adapted.merge_and_unload()  # pyright: ignore[reportCallIssue]
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _recipe(spec: RewardSpec, base: ModelRecord, rows: pl.DataFrame, context: TrainingContext) -> Recipe:
    return Recipe(
        name=REWARD,
        method=REWARD,
        spec=spec,
        base=base.name,
        base_revision=base.revision,
        inputs={"rows": content_hash(rows)},
        tier=numeric_settings(context.tier),
        version=REWARD_VERSION,
    )
