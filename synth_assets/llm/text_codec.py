"""Prompts to token ids and token ids to completions with a model's own tokenizer, the same for every generator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from synth_assets.llm.chat_encoding import encode_chat, encode_user_turn
from synth_assets.llm.protocols import Completion, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextCodec:
    """The tokenizer's part of `TextGenerator`."""

    _tokenizer: "PreTrainedTokenizerBase"

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Encode a chat with its generation prompt."""
        return encode_chat(self._tokenizer, messages)[0]

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        """Encode a chat up to the next user message."""
        return encode_user_turn(self._tokenizer, messages)

    def encode_template(self, template: str) -> list[int]:
        """Encode trusted template text, including its control tokens."""
        return self._tokenizer.encode(template, add_special_tokens=False)

    def _completion(self, prompt: Sequence[int], ids: list[int], stops: frozenset[int]) -> Completion:
        """Return the completion of a prompt from its new ids, of which the last may be a stop token."""
        stopped = bool(ids) and ids[-1] in stops
        text_ids = ids[:-1] if stopped else ids
        return Completion(
            text=str(self._tokenizer.decode(text_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
            finish_reason="stop" if stopped else "length",
            prompt_tokens=len(prompt),
            completion_tokens=len(text_ids),
        )
