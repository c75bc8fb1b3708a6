"""Reward models: score a response to an instruction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import numpy as np

from resources.hardware import Hardware
from resources.inference import Inference
from synth_assets.evals.program_rewards import program_reward
from synth_assets.llm import loading, model_files
from synth_assets.llm.chat_encoding import ChatTemplateError, encode_chat
from synth_assets.llm.protocols import Message, RewardModel
from synth_assets.schemas.records import ModelRecord

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_ROWS = 64


@dataclass(frozen=True)
class RewardInputFormat:
    """The input format of a family of reward models.

    Attributes:
        template: "chat": instruction and response as turns of the chat template; "pair": the two segments of an
            encoder.
        dtype: precision of the weights; empty: the tier's.
    """

    template: Literal["chat", "pair"]
    dtype: str = ""


# With a chat template, the accuracy of OpenAssistant/reward-model-deberta-v3-large-v2 drops from .91-.96 to .52.
REWARD_INPUT_FORMATS = {
    "deberta-v2": RewardInputFormat("pair", dtype="float32"),
    "llama": RewardInputFormat("chat"),
    "qwen2": RewardInputFormat("chat"),
    "qwen3": RewardInputFormat("chat"),
    "gemma2": RewardInputFormat("chat"),
    "mistral": RewardInputFormat("chat"),
}
"""Architecture (`model_type`) -> input format."""


class ClassifierReward:
    """A sequence classifier with one logit, the reward."""

    def __init__(
        self,
        network: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        form: RewardInputFormat,
        *,
        model: str,
        revision: str,
        context_tokens: int,
    ) -> None:
        """Wrap a loaded model. Raise ValueError if it does not have exactly one label."""
        if network.config.num_labels != 1:
            raise ValueError(f"a reward model must have one label, {model} has {network.config.num_labels}")
        self.model, self.revision = model, revision
        self._network, self._tokenizer, self._form = network.eval(), tokenizer, form
        self._context_tokens = context_tokens
        self._pad: Any = tokenizer.pad_token_id
        network.config.pad_token_id = self._pad  # the classifier scores the last non-padding token

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        """Return (n,) float64 rewards in the model's unit, in order; NaN if the chat template refuses the turns.

        Inputs that exceed the context are truncated at the end.
        """
        import torch

        contexts = histories or [()] * len(pairs)
        encoded = [self._encode(history, *pair) for history, pair in zip(contexts, pairs, strict=True)]
        order = sorted((index for index, ids in enumerate(encoded) if ids), key=lambda index: len(encoded[index]))
        rewards = np.full(len(encoded), np.nan)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_ROWS):
                batch = order[start : start + BATCH_ROWS]
                rewards[batch] = self._forward([encoded[index] for index in batch]).double().cpu().numpy()
        return rewards

    def _encode(self, history: Sequence[Message], instruction: str, response: str) -> list[int]:
        if self._form.template == "pair":
            options: Any = {"split_special_tokens": True, "truncation": True, "max_length": self._context_tokens}
            question = "\n\n".join([*(turn["content"] for turn in history), instruction])
            return list(self._tokenizer(question, response, **options)["input_ids"])  # pyright: ignore
        turns = [*history, {"role": "user", "content": instruction}]
        try:
            prompt, answer = encode_chat(self._tokenizer, turns, answer=response)
        except ChatTemplateError:
            return []
        return (prompt + answer)[: self._context_tokens]

    def _forward(self, rows: list[list[int]]) -> "torch.Tensor":
        """Return (rows,) rewards of token ids, padded on the right."""
        import torch

        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        device = self._network.device
        return self._network(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0]


class RewardModels(dg.ConfigurableResource):
    """Reward models of this deployment's tier."""

    hardware: Hardware

    def load(self, record: ModelRecord) -> RewardModel:
        """Load the reward model of a record. Raise ValueError for an unknown input format."""
        if record.location.startswith(model_files.PROGRAM):
            return program_reward(record.location)
        if record.family not in REWARD_INPUT_FORMATS:
            raise ValueError(
                f"no input format for the reward model {record.location} ({record.family!r}): add a row to "
                f"REWARD_INPUT_FORMATS in resources/reward.py; known are {', '.join(REWARD_INPUT_FORMATS)}"
            )
        form, tier = REWARD_INPUT_FORMATS[record.family], self.hardware.limits()
        # bfloat16 has 8 significant bits: near rewards would be equal. A CPU has the memory for float32
        dtype = form.dtype or ("float32" if tier.device == "cpu" else tier.dtype)
        loading.prepare_libraries(tier)
        folder = model_files.weights_folder(record.location, record.revision)
        return ClassifierReward(
            loading.load_classifier(folder, tier, dtype),
            loading.load_tokenizer(folder),
            form,
            model=record.name,
            revision=record.revision,
            context_tokens=record.context_tokens,
        )


def compared_rewards(
    folder: Path, inference: Inference, rewards: RewardModels
) -> tuple[RewardModel, RewardModel | None]:
    """Return the reward model in a folder, loaded as SYNTH_REWARD would, and the one in use.

    The second is None if it is the first, or not on this machine.
    """
    hardware = inference.hardware.model_copy(update={"reward": str(folder)})
    trained = rewards.load(inference.model_copy(update={"hardware": hardware}).resolve("reward"))
    location = inference.hardware.location("reward")
    if not location.startswith(model_files.PROGRAM) and model_files.local_folder(location) in (None, folder.resolve()):
        return trained, None
    return trained, rewards.load(inference.resolve("reward"))
