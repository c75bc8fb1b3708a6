"""Log-probabilities of answers, such as the reference log-probabilities of DPO, which all its runs share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.loading import load_adapter
from synth_assets.schemas.tables import REFERENCE_LOGPROBS
from synth_assets.training.data import Example, encode_pairs
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.preconditions import check_precision

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Policy = tuple["PeftModel", "PreTrainedTokenizerBase"]
"""A base model with an adapter, and its tokenizer."""

BATCH_FACTOR = 2  # rows per forward pass, in multiples of the tier's training batch; gradients need no memory here


def reference_policy(base: LoadedBase, adapter: Path, setup: TrainingSetup) -> Policy:
    """Load a base model with an adapter for inference. Raises TrainingError if the tier's precision is unavailable."""
    check_precision(setup.tier)
    model, tokenizer = base
    return load_adapter(model, adapter), tokenizer


def pair_logprobs(policy: Policy, pairs: pl.DataFrame, setup: TrainingSetup) -> pl.DataFrame:
    """Compute REFERENCE_LOGPROBS of `pairs` under a policy: sums over the answer's tokens, in nats.

    The answer includes its end-of-turn token.

    Raises:
        TrainingError: a pair exceeds the context length, or a sum is not finite.
    """
    model, tokenizer = policy
    examples = encode_pairs(pairs, tokenizer, setup.context_tokens)
    answers = [Example(e.prompt, e.chosen) for e in examples] + [Example(e.prompt, e.rejected) for e in examples]
    sums = answer_logprobs(model, answers, setup.tier.batch_size * BATCH_FACTOR)
    table = pl.DataFrame(
        {
            "pair_id": [example.pair_id for example in examples],
            "chosen_logprob": sums[: len(examples)],
            "rejected_logprob": sums[len(examples) :],
        },
        schema=REFERENCE_LOGPROBS,
    )
    broken = table.filter(~(pl.col("chosen_logprob").is_finite() & pl.col("rejected_logprob").is_finite()))
    if broken.height:
        raise TrainingError(
            f"log-probabilities of {broken.height} pairs are not finite, such as {broken['pair_id'][0]}"
        )
    return table


def answer_logprobs(model: "PreTrainedModel | PeftModel", examples: Sequence[Example], batch_size: int) -> list[float]:
    """Compute log p(answer | prompt) in nats for each example, in order; batches group examples of similar length."""
    import torch

    sums = [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]))
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            for index, total in zip(indices, _batch_logprobs(model, [examples[i] for i in indices]), strict=True):
                sums[index] = total
    return sums


def _batch_logprobs(model: "PreTrainedModel | PeftModel", examples: Sequence[Example]) -> Iterator[float]:
    import torch

    rows = [torch.tensor(example.prompt + example.answer) for example in examples]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
    texts = logits[:, -ids.shape[1] :]  # drop the logits of virtual tokens
    for example, row in zip(examples, texts, strict=True):
        yield _sum_logprobs(
            row[len(example.prompt) - 1 : len(example) - 1], torch.tensor(example.answer, device=row.device)
        )


def _sum_logprobs(logits: "Tensor", answer: "Tensor") -> float:
    """Sum the answer's log-probabilities in float32, one answer at a time to limit memory."""
    import torch

    selected = torch.log_softmax(logits.float(), dim=-1).gather(1, answer.unsqueeze(1))
    return float(selected.double().sum())
