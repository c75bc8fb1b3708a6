"""Reference student: the base tuned with LoRA on the teacher's Magpie rows; its samples train the reward model."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, cast

from synth_assets.embedded.chat_format import PAD, START_HEADER, header, render
from synth_assets.embedded.optimization import Ticker
from synth_assets.embedded.sampling import sample_instructions, sample_responses
from synth_assets.embedded.task import key_of
from synth_assets.embedded.tokenizer import token_id
from synth_assets.embedded.world import split_of

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

RESPONSE_TEMPERATURE = 0.7


@dataclass(frozen=True)
class StudentRecipe:
    """Settings for supervised fine-tuning of the base with LoRA, with warm-up and cosine decay to 0."""

    asked: int = 1_800
    rows: int = 1_200
    rank: int = 8
    learning_rate: float = 5e-3
    epochs: int = 6
    batch_size: int = 16
    warm_up_steps: int = 10
    seed: int = 100


STUDENT = StudentRecipe()


def magpie_rows(
    teacher: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", *, asked: int, rows: int, seed: int
) -> list[tuple[str, str]]:
    """Generate (instruction, response) pairs with the teacher: finished, unique, without held-out questions."""
    invented = sample_instructions(teacher, tokenizer, asked, seed=seed)
    texts = dict.fromkeys(sample.text.strip() for sample in invented if sample.finished)
    kept = [text for text in texts if len(text) >= 5 and split_of(key_of(text)) == "train"]
    responses = sample_responses(teacher, tokenizer, kept, temperature=RESPONSE_TEMPERATURE, seed=seed + 1)
    pairs = zip(kept, responses, strict=True)
    return [(text, response.text) for text, response in pairs if response.finished and response.text.strip()][:rows]


def train_student(
    base: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    rows: list[tuple[str, str]],
    recipe: StudentRecipe,
    progress: Callable[[str], None],
) -> "LlamaForCausalLM":
    """Train an adapter on the base in place, merge it, and return the model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import get_cosine_schedule_with_warmup

    torch.manual_seed(recipe.seed)
    random, rows = Random(recipe.seed), list(rows)
    lora = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    steps = recipe.epochs * (len(rows) // recipe.batch_size)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=recipe.learning_rate
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warm_up_steps, steps)
    ticker = Ticker(progress, "reference student", steps, "steps")
    model.train()
    for step in range(steps):
        at = step % (len(rows) // recipe.batch_size) * recipe.batch_size
        if at == 0:
            random.shuffle(rows)
        batch = _encode(tokenizer, rows[at : at + recipe.batch_size])
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ticker.tick(step + 1, f", loss {loss.item():.3f}")
    return cast("LlamaForCausalLM", model.merge_and_unload())


def _encode(tokenizer: "PreTrainedTokenizerFast", rows: list[tuple[str, str]]) -> dict[str, Any]:
    """Encode the rows as chats into ids, mask and labels; only the response and its end of turn have labels."""
    texts = [render([("user", instruction), ("assistant", response)]) for instruction, response in rows]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False)
    labels = batch.input_ids.clone()
    labels[~response_mask(tokenizer, batch.input_ids)] = -100
    return {**batch, "labels": labels}


def response_mask(tokenizer: "PreTrainedTokenizerFast", ids: "torch.Tensor") -> "torch.Tensor":
    """Return a (batch, length) mask: true on the first response and its end of turn, false on its header."""
    import torch

    second_turn = torch.cumsum((ids == token_id(tokenizer, START_HEADER)).long(), dim=1) >= 2
    header_tokens = len(tokenizer(header("assistant"), add_special_tokens=False).input_ids)
    inside = torch.cumsum(second_turn, dim=1) > header_tokens
    return second_turn & inside & (ids != token_id(tokenizer, PAD))
