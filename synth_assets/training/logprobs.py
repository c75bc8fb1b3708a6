"""Log-probabilities of answers: what DPO compares a policy with, computed once for all its runs."""

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
"""A base with an adapter on it, and its tokenizer."""

BATCH_FACTOR = 2  # rows in one forward pass for each of the tier's training batch: no gradients are kept


def reference_policy(base: LoadedBase, adapter: Path, setting: TrainingSetup) -> Policy:
    """The base with the adapter of a folder, for reading only; TrainingError where the precision is not available."""
    check_precision(setting.tier)
    model, tokenizer = base
    return load_adapter(model, adapter), tokenizer


def pair_logprobs(policy: Policy, pairs: pl.DataFrame, setting: TrainingSetup) -> pl.DataFrame:
    """REFERENCE_LOGPROBS of `pairs` under a policy: summed over the answer's tokens, in nats.

    The end of the turn belongs to the answer.

    Raises:
        TrainingError: a pair is longer than the context, or a sum is not finite.
    """
    model, tokenizer = policy
    examples = encode_pairs(pairs, tokenizer, setting.context_tokens)
    answers = [Example(e.prompt, e.chosen) for e in examples] + [Example(e.prompt, e.rejected) for e in examples]
    sums = answer_logprobs(model, answers, setting.tier.batch_size * BATCH_FACTOR)
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
        raise TrainingError(f"{broken.height} log-probabilities are not finite, such as of pair {broken['pair_id'][0]}")
    return table


def answer_logprobs(model: "PreTrainedModel | PeftModel", examples: Sequence[Example], batch_size: int) -> list[float]:
    """The log p(answer | prompt) in nats for each example, in order; batches hold examples of like length."""
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
    texts = logits[:, -ids.shape[1] :]  # the virtual tokens of a soft prompt have logits too
    for example, row in zip(examples, texts, strict=True):
        yield _summed(row[len(example.prompt) - 1 : len(example) - 1], torch.tensor(example.answer, device=row.device))


def _summed(logits: "Tensor", answer: "Tensor") -> float:
    """One answer at a time in float32, so that the wide copy of a large vocabulary stays small."""
    import torch

    picked = torch.log_softmax(logits.float(), dim=-1).gather(1, answer.unsqueeze(1))
    return float(picked.double().sum())
