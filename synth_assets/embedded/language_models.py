"""Train the embedded teacher and base: small Llama models from scratch, on text drawn from the corpus on the fly."""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from synth_assets.embedded.chat_format import BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN, PAD, START_HEADER, render
from synth_assets.embedded.corpus import chat_example, raw_document
from synth_assets.embedded.optimization import Optimizers, Ticker
from synth_assets.embedded.tokenizer import CONTEXT_TOKENS, FILES, load_tokenizer, token_id

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

IGNORED = -100
WARM_UP_STEPS = 100
FINAL_RATE = 0.02
WEIGHT_DECAY = 0.05
TEXTS_SORTED_AT_ONCE = 16  # batches that are drawn together and sorted by length to reduce padding


@dataclass(frozen=True)
class LanguageModelRecipe:
    """Training settings of a model, limited by tokens instead of time so that training is reproducible.

    Attributes:
        document: draws one rendered training text.
        tokens: training tokens, without padding.
        user_weight: weight of the loss on user turns; 1 weights all text equally.
    """

    document: Callable[[Random], str]
    tokens: int
    seed: int
    batch_size: int = 32
    user_weight: float = 1.0
    muon_lr: float = 4e-3
    adam_lr: float = 3e-3


def _chat_document(random: Random) -> str:
    return render(chat_example(random))


TEACHER = LanguageModelRecipe(_chat_document, tokens=1_600_000, seed=0, user_weight=0.3)
BASE = LanguageModelRecipe(raw_document, tokens=2_900_000, seed=1)


def new_model(tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """Return an untrained Llama model with 0.98 million parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=token_id(tokenizer, BEGIN_OF_TEXT),
        eos_token_id=token_id(tokenizer, END_OF_TURN),
        pad_token_id=token_id(tokenizer, PAD),
    )
    return LlamaForCausalLM(config)


def train_language_model(
    recipe: LanguageModelRecipe, name: str, tokenizer_folder: Path, output: Path, progress: Callable[[str], None]
) -> None:
    """Train a model from scratch and save it as bf16 safetensors with its tokenizer."""
    import torch

    torch.manual_seed(recipe.seed)
    tokenizer = load_tokenizer(tokenizer_folder)
    model = new_model(tokenizer)
    optimizers = Optimizers(model, muon_lr=recipe.muon_lr, adam_lr=recipe.adam_lr, weight_decay=WEIGHT_DECAY)
    ticker = Ticker(progress, name, recipe.tokens, "tokens")
    start_header, padding = token_id(tokenizer, START_HEADER), token_id(tokenizer, PAD)
    seen, smoothed, step = 0, None, 0
    model.train()
    for batch in _batches(recipe, tokenizer):
        loss = _loss(model, batch, start_header, recipe.user_weight)
        loss.backward()
        done = seen / recipe.tokens
        optimizers.step(min(1.0, (step + 1) / WARM_UP_STEPS) * _cosine(done))
        seen, step = seen + int(torch.count_nonzero(batch - padding)), step + 1
        smoothed = loss.item() if smoothed is None else 0.95 * smoothed + 0.05 * loss.item()
        ticker.tick(seen, f", loss {smoothed:.3f}")
        if seen >= recipe.tokens:
            break
    save_model(model, tokenizer_folder, output)


def _cosine(done: float) -> float:
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def _batches(recipe: LanguageModelRecipe, tokenizer: "PreTrainedTokenizerFast") -> Iterator["torch.Tensor"]:
    """Yield (batch, length) right-padded token ids without end; lengths within a batch are similar."""
    import torch

    padding = token_id(tokenizer, PAD)
    random = Random(100 + recipe.seed)
    while True:
        texts = [recipe.document(random) for _ in range(recipe.batch_size * TEXTS_SORTED_AT_ONCE)]
        encoded = sorted(tokenizer(texts, add_special_tokens=False).input_ids, key=len)
        chunks = [encoded[at : at + recipe.batch_size] for at in range(0, len(encoded), recipe.batch_size)]
        random.shuffle(chunks)
        for chunk in chunks:
            batch = torch.full((len(chunk), len(chunk[-1])), padding)
            for row, ids in zip(batch, chunk, strict=True):
                row[: len(ids)] = torch.tensor(ids)
            yield batch


def _loss(model: "LlamaForCausalLM", batch: "torch.Tensor", start_header: int, user_weight: float) -> "torch.Tensor":
    """Return the mean cross-entropy in nats, with weight `user_weight` on user turns (odd turns) and 0 on padding.

    Right padding needs no attention mask, because attention is causal.
    """
    import torch

    logits = model(input_ids=batch).logits[:, :-1]
    targets = batch[:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    turns = torch.cumsum(batch == start_header, dim=1)[:, 1:]
    weights = torch.where(turns % 2 == 1, user_weight, 1.0) * (targets != model.config.pad_token_id)
    return (losses * weights).sum() / weights.sum()


def save_model(model: "PreTrainedModel", tokenizer_folder: Path, output: Path) -> None:
    """Save a model to a folder in bf16, without a path in its config, with copies of the tokenizer files."""
    ids = load_tokenizer(tokenizer_folder).get_vocab()
    model.bfloat16()
    if model.can_generate():
        model.generation_config.eos_token_id = [ids[END_OF_TURN], ids[END_OF_TEXT]]
        model.generation_config.pad_token_id = ids[PAD]
    model.config.name_or_path = ""
    model.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    for name in FILES:
        shutil.copyfile(tokenizer_folder / name, output / name)
