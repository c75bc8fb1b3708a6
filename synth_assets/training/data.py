"""Tokenise training rows and build the datasets of TRL's trainers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from synth_assets.llm.chat_encoding import ChatTemplateError, encode_chat
from synth_assets.training.errors import TrainingError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label that torch's cross entropy ignores


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and its answer with the end-of-turn token; the loss covers only the answer."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        """Return the tokens of the whole sequence."""
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class PairExample:
    """Token ids of a prompt, its chosen and its rejected answer."""

    pair_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def __len__(self) -> int:
        """Return the tokens of the longer of the two sequences."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def encode_rows(rows: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", context_tokens: int) -> list[Example]:
    """Tokenise SFT rows (`history`, `instruction`, `response`), in order.

    Raises:
        TrainingError: rows exceed the context length (rows are never truncated), or the chat template rejects rows.
    """
    examples, rejected = [], []
    for row in rows.iter_rows(named=True):
        messages = [*(row.get("history") or []), {"role": "user", "content": row["instruction"]}]
        try:
            examples.append(Example(*encode_chat(tokenizer, messages, answer=row["response"])))
        except ChatTemplateError as error:
            rejected.append((f"row {row.get('row_id')}", error))
    _raise_rejected(rejected)
    _check_lengths(examples, context_tokens)
    return examples


def encode_pairs(pairs: pl.DataFrame, tokenizer: "PreTrainedTokenizerBase", context_tokens: int) -> list[PairExample]:
    """Tokenise pairs (`history`, `instruction`, `chosen`, `rejected`), in order; errors as in `encode_rows`."""
    examples, failures = [], []
    for row in pairs.iter_rows(named=True):
        messages = [*(row.get("history") or []), {"role": "user", "content": row["instruction"]}]
        try:
            prompt, chosen = encode_chat(tokenizer, messages, answer=row["chosen"])
            _, rejected = encode_chat(tokenizer, messages, answer=row["rejected"])
        except ChatTemplateError as error:
            failures.append((f"pair {row['pair_id']}", error))
            continue
        examples.append(PairExample(row["pair_id"], prompt, chosen, rejected))
    _raise_rejected(failures)
    _check_lengths(examples, context_tokens)
    return examples


def best_responses(pairs: pl.DataFrame) -> pl.DataFrame:
    """Select the best response to each instruction of `pairs` as SFT rows, in the order of the pairs.

    The best response is the chosen one with the highest reward, or the first chosen one if the pairs have no rewards
    (imports).
    """
    best = pairs.with_row_index("position").sort("chosen_reward", "position", descending=[True, False], nulls_last=True)
    rows = best.unique("row_id", keep="first", maintain_order=True).sort("position")
    return rows.select("row_id", "history", "instruction", pl.col("chosen").alias("response"), "split")


def by_split(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a table with the column `split` into (train, validation) rows."""
    return rows.filter(pl.col("split") == "train"), rows.filter(pl.col("split") == "validation")


def sft_table(examples: Sequence[Example]) -> "Dataset":
    """Build a dataset with `input_ids`, `labels` and `length`, which TRL's SFTTrainer uses without preparation."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [e.prompt + e.answer for e in examples],
            "labels": [[IGNORED] * len(e.prompt) + e.answer for e in examples],
            "length": [len(e) for e in examples],
        }
    )


def pair_table(examples: Sequence[PairExample], reference: Mapping[str, tuple[float, float]]) -> "Dataset":
    """Build a dataset for TRL's DPOTrainer; `reference` maps a pair id to the log-probabilities (chosen, rejected).

    Raises:
        TrainingError: a pair has no reference log-probabilities.
    """
    from datasets import Dataset

    if missing := [e.pair_id for e in examples if e.pair_id not in reference]:
        raise TrainingError(f"{len(missing)} pairs have no reference log-probabilities, such as {missing[0]}")
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


def _raise_rejected(rejected: Sequence[tuple[str, ChatTemplateError]]) -> None:
    if rejected:
        name, error = rejected[0]
        raise TrainingError(
            f"{len(rejected)} rows do not fit the base model's chat template, such as {name}: {error}. Materialise the "
            "filtering stage again to filter them for this base"
        )


def _check_lengths(examples: Sequence[Example | PairExample], context_tokens: int) -> None:
    lengths = [len(example) for example in examples]
    if longer := sum(length > context_tokens for length in lengths):
        raise TrainingError(
            f"{longer} rows exceed the context of {context_tokens} tokens; the longest has {max(lengths)}"
        )
