"""Batched generation with the embedded models, used to build and measure them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synth_assets.embedded.chat_format import PRE_QUERY, render

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BATCH_SIZE = 128
MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class Sample:
    """A generated text without special tokens; `finished` is true if the model ended its turn."""

    text: str
    finished: bool


def sample_responses(
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    instructions: Sequence[str],
    *,
    temperature: float,
    seed: int,
) -> list[Sample]:
    """Generate one answer per instruction; temperature 0 decodes greedily."""
    prompts = [render([("user", text)], add_generation_prompt=True) for text in instructions]
    return sample_continuations(model, tokenizer, prompts, temperature=temperature, seed=seed)


def sample_instructions(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", count: int, *, seed: int
) -> list[Sample]:
    """Generate instructions from the pre-query template at temperature 1 (Magpie, arXiv 2406.08464)."""
    return sample_continuations(model, tokenizer, [PRE_QUERY] * count, temperature=1.0, seed=seed)


def sample_continuations(
    model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    prompts: Sequence[str],
    *,
    temperature: float,
    seed: int,
) -> list[Sample]:
    """Continue each rendered prompt, in batches of similar length; results are in the order of the prompts."""
    import torch

    torch.manual_seed(seed)
    model.eval()
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    samples: dict[int, Sample] = {}
    for at in range(0, len(order), BATCH_SIZE):
        chosen = order[at : at + BATCH_SIZE]
        generated = _generate(model, tokenizer, [prompts[index] for index in chosen], temperature)
        samples |= {index: _cut(tokenizer, ids) for index, ids in zip(chosen, generated, strict=True)}
    return [samples[index] for index in range(len(prompts))]


def _generate(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", prompts: list[str], temperature: float
) -> list[list[int]]:
    import torch

    encoded = tokenizer(
        prompts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False
    )
    how = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    with torch.no_grad():
        # pyright cannot bind the mixin's method: its protocol requires attributes that the class sets later
        output = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
            **encoded, max_new_tokens=MAX_NEW_TOKENS, do_sample=bool(temperature), **how
        )
    return output[:, encoded.input_ids.shape[1] :].tolist()


def _cut(tokenizer: "PreTrainedTokenizerFast", ids: list[int]) -> Sample:
    """Truncate the ids at the first special token; the text is finished if that token is the end of turn."""
    special = set(tokenizer.all_special_ids)
    end = next((at for at, token in enumerate(ids) if token in special), len(ids))
    return Sample(str(tokenizer.decode(ids[:end])), end < len(ids) and ids[end] == tokenizer.eos_token_id)
