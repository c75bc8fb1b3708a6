"""Tokenizer of the embedded models: byte-level BPE with single digits, and a Llama-3-style chat template."""

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from synth_assets.embedded.chat_format import (
    BEGIN_OF_TEXT,
    CHAT_TEMPLATE,
    END_HEADER,
    END_OF_TEXT,
    END_OF_TURN,
    PAD,
    SPECIAL_TOKENS,
    START_HEADER,
    render,
)
from synth_assets.embedded.corpus import chat_example, raw_document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 1_024
CONTEXT_TOKENS = 256
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CHATS, DOCUMENTS, SEED = 15_000, 8_000, 1


def _texts() -> Iterator[str]:
    """Yield training text for the BPE merges; special tokens become line breaks, so that no merge spans one."""
    random = Random(SEED)
    for _ in range(CHATS):
        yield re.sub(r"<\|\w+\|>", "\n", render(chat_example(random)))
    for _ in range(DOCUMENTS):
        yield re.sub(r"<\|\w+\|>", "\n", raw_document(random))


def train_tokenizer(output: Path) -> None:
    """Train the tokenizer on the corpus and save its files to a folder.

    Line breaks are split off before the BPE. Otherwise the line break at the end of a prompt could merge with the
    answer, and tokens(prompt) + tokens(answer) would differ from tokens(prompt + answer).
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN_OF_TEXT,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        extra_special_tokens=[START_HEADER, END_HEADER, END_OF_TEXT],
        padding_side="left",
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(output)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """Load a tokenizer from a model folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def token_id(tokenizer: "PreTrainedTokenizerFast", token: str) -> int:
    """Return the id of a token in the vocabulary."""
    return tokenizer.get_vocab()[token]
