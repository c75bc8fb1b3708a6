"""Encoding of prompts with a model's own tokenizer, the same for every text generator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from synth_assets.llm.chat_encoding import encode_chat, encode_user_turn
from synth_assets.llm.protocols import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptEncoder:
    """The encoding half of `TextGenerator`."""

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
