"""Reward models: a score for a response to an instruction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import numpy as np

from resources.hardware import Hardware
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
    """How a family of reward models was trained to read an instruction and its response.

    Attributes:
        template: "chat": both as turns of the chat template; "pair": the two segments of an encoder's input.
        dtype: precision of the weights; empty is the tier's.
    """

    template: Literal["chat", "pair"]
    dtype: str = ""


# A chat template takes the accuracy of OpenAssistant/reward-model-deberta-v3-large-v2 from .91-.96 to .52.
REWARD_INPUT_FORMATS = {
    "deberta-v2": RewardInputFormat("pair", dtype="float32"),
    "llama": RewardInputFormat("chat"),
    "qwen2": RewardInputFormat("chat"),
    "qwen3": RewardInputFormat("chat"),
    "gemma2": RewardInputFormat("chat"),
    "mistral": RewardInputFormat("chat"),
}
"""By the architecture's name (`model_type`), which is a reward model's family."""


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
        """Take a loaded model; ValueError where it has not one score but several."""
        if network.config.num_labels != 1:
            raise ValueError(f"{model} gives {network.config.num_labels} scores; a reward model gives one")
        self.model, self.revision = model, revision
        self._network, self._tokenizer, self._form = network.eval(), tokenizer, form
        self._context_tokens = context_tokens
        self._pad: Any = tokenizer.pad_token_id
        network.config.pad_token_id = self._pad  # the classifier scores the last other token

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        """(n,) float64 rewards in the model's unit, in order; NaN where the chat template refuses the turns.

        The end of what exceeds the context is not read.
        """
        import torch

        before = histories or [()] * len(pairs)
        encoded = [self._encode(history, *pair) for history, pair in zip(before, pairs, strict=True)]
        order = sorted((at for at, ids in enumerate(encoded) if ids), key=lambda index: len(encoded[index]))
        rewards = np.full(len(encoded), np.nan)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_ROWS):
                batch = order[start : start + BATCH_ROWS]
                rewards[batch] = self._forward([encoded[index] for index in batch]).double().cpu().numpy()
        return rewards

    def _encode(self, history: Sequence[Message], instruction: str, response: str) -> list[int]:
        if self._form.template == "pair":
            options: Any = {"split_special_tokens": True, "truncation": True, "max_length": self._context_tokens}
            asked = "\n\n".join([*(turn["content"] for turn in history), instruction])
            return list(self._tokenizer(asked, response, **options)["input_ids"])  # pyright: ignore
        turns = [*history, {"role": "user", "content": instruction}]
        try:
            prompt, answer = encode_chat(self._tokenizer, turns, answer=response)
        except ChatTemplateError:
            return []
        return (prompt + answer)[: self._context_tokens]

    def _forward(self, rows: list[list[int]]) -> "torch.Tensor":
        """(rows,) rewards of token ids, padded on the right."""
        import torch

        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        device = self._network.device
        return self._network(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0]


class RewardModels(dg.ConfigurableResource):
    """Reward models of this deployment's tier."""

    hardware: Hardware

    def load(self, record: ModelRecord) -> RewardModel:
        """The reward model of a record; ValueError where nobody knows how its family reads text."""
        if record.location.startswith(model_files.PROGRAM):
            return program_reward(record.location)
        if record.family not in REWARD_INPUT_FORMATS:
            raise ValueError(
                f"how {record.location} reads an instruction is not known for {record.family!r}: add a row to FORMS in "
                f"resources/reward.py; there are {', '.join(REWARD_INPUT_FORMATS)}"
            )
        form, tier = REWARD_INPUT_FORMATS[record.family], self.hardware.limits()
        loading.prepare_libraries(tier)
        folder = model_files.weights_folder(record.location, record.revision)
        return ClassifierReward(
            loading.load_classifier(folder, tier, form.dtype or tier.dtype),
            loading.load_tokenizer(folder),
            form,
            model=record.name,
            revision=record.revision,
            context_tokens=record.context_tokens,
        )
