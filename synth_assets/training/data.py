"""Rows as token ids: what a model reads, and under which tokens the loss is taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.chat_encoding import ChatTemplateError, encode_chat
from synth_assets.training.errors import TrainingError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True)
class Example:
    """A prompt and its answer with the end of the turn; the loss covers the answer alone."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        """Tokens of the whole sequence."""
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class PairExample:
    """A prompt and two answers to it, of which the first is preferred."""

    pair_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def __len__(self) -> int:
        """Tokens of the longer of the two sequences."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def encode_rows(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", context_tokens: int) -> list[Example]:
    """SFT rows (`history`, `instruction`, `response`) as examples, in order.

    Raises:
        TrainingError: rows longer than the context, which are counted and never cut; or rows that the chat template
            refuses.
    """
    examples, refused = [], []
    for row in rows.iter_rows(named=True):
        messages = [*(row.get("history") or []), {"role": "user", "content": row["instruction"]}]
        try:
            examples.append(Example(*encode_chat(tokenizer, messages, answer=row["response"])))
        except ChatTemplateError as error:
            refused.append((f"row {row.get('row_id')}", error))
    _refuse_refused(refused)
    _refuse_long(examples, context_tokens)
    return examples


def encode_pairs(pairs: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", context_tokens: int) -> list[PairExample]:
    """Pairs (`history`, `instruction`, `chosen`, `rejected`) as examples, in order; errors as in `encode_rows`."""
    examples, refused = [], []
    for row in pairs.iter_rows(named=True):
        messages = [*(row.get("history") or []), {"role": "user", "content": row["instruction"]}]
        try:
            prompt, chosen = encode_chat(tokenizer, messages, answer=row["chosen"])
            _, rejected = encode_chat(tokenizer, messages, answer=row["rejected"])
        except ChatTemplateError as error:
            refused.append((f"pair {row['pair_id']}", error))
            continue
        examples.append(PairExample(row["pair_id"], prompt, chosen, rejected))
    _refuse_refused(refused)
    _refuse_long(examples, context_tokens)
    return examples


def best_responses(pairs: pl.DataFrame) -> pl.DataFrame:
    """The best answer to each instruction of `pairs` as rows to train on, in the order of the pairs.

    Best is the chosen answer of highest reward; pairs without rewards (imports) give their first chosen answer.
    """
    best = pairs.with_row_index("position").sort("chosen_reward", "position", descending=[True, False], nulls_last=True)
    rows = best.unique("row_id", keep="first", maintain_order=True).sort("position")
    return rows.select("row_id", "history", "instruction", pl.col("chosen").alias("response"), "split")


def by_split(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(train, validation) rows of a table with the column `split`."""
    return rows.filter(pl.col("split") == "train"), rows.filter(pl.col("split") == "validation")


def sft_table(examples: Sequence[Example]) -> "Dataset":
    """Columns `input_ids`, `labels`, `length`, as TRL's SFTTrainer takes them without preparing them again."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [e.prompt + e.answer for e in examples],
            "labels": [[IGNORED] * len(e.prompt) + e.answer for e in examples],
            "length": [len(e) for e in examples],
        }
    )


def pair_table(examples: Sequence[PairExample], reference: Mapping[str, tuple[float, float]]) -> "Dataset":
    """The columns of TRL's DPOTrainer, with the reference's log-probabilities of (chosen, rejected) by pair id.

    Raises:
        TrainingError: a pair without reference log-probabilities.
    """
    from datasets import Dataset

    if missing := [e.pair_id for e in examples if e.pair_id not in reference]:
        raise TrainingError(f"{len(missing)} pairs have no reference log-probability, such as {missing[0]}")
    return Dataset.from_dict(
        {
            "prompt_ids": [e.prompt for e in examples],
            "chosen_ids": [e.chosen for e in examples],
            "rejected_ids": [e.rejected for e in examples],
            "ref_chosen_logps": [reference[e.pair_id][0] for e in examples],
            "ref_rejected_logps": [reference[e.pair_id][1] for e in examples],
            "length": [len(e) for e in examples],
        }
    )


def _refuse_refused(refused: Sequence[tuple[str, ChatTemplateError]]) -> None:
    if refused:
        name, error = refused[0]
        raise TrainingError(
            f"{len(refused)} rows do not fit the base, such as {name}: {error}. Filter them against this base: "
            "materialise the filtering stage again"
        )


def _refuse_long(examples: Sequence[Example | PairExample], context_tokens: int) -> None:
    lengths = [len(example) for example in examples]
    if longer := sum(length > context_tokens for length in lengths):
        raise TrainingError(f"{longer} rows exceed the context of {context_tokens} tokens; the longest: {max(lengths)}")
