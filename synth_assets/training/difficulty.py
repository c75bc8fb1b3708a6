"""Score the difficulty of training rows for an easy-to-hard curriculum."""

import math
from collections.abc import Sequence

import polars as pl

from synth_assets.training.data import Example
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import Policy, answer_logprobs
from synth_assets.training.specs import OptimizationSpec

LOGPROB_BATCH_ROWS = 16
COLUMNS = {"reward_margin": "margin", "score": "score"}  # difficulty -> column; higher values are easier


def row_difficulty(
    spec: OptimizationSpec, policy: Policy, examples: Sequence[Example], rows: pl.DataFrame
) -> list[float]:
    """Return the difficulty of each example, higher is harder; empty if the spec has no curriculum.

    "length" counts the tokens of prompt and answer. "base_perplexity" is the perplexity of the answer under the initial
    weights. "reward_margin" and "score" are columns of the rows in which higher values are easier.

    Raises:
        TrainingError: the column is missing or has null or non-finite values.
    """
    if spec.order != "curriculum":
        return []
    if spec.difficulty == "length":
        return [float(len(example)) for example in examples]
    if spec.difficulty == "base_perplexity":
        logprobs = answer_logprobs(policy[0], examples, LOGPROB_BATCH_ROWS)
        return [math.exp(-total / len(e.answer)) for total, e in zip(logprobs, examples, strict=True)]
    column = COLUMNS[spec.difficulty]
    if column not in rows.columns or rows[column].null_count() or not rows[column].is_finite().all():
        raise TrainingError(
            f"the curriculum by {spec.difficulty} needs a finite number in column {column} of every row"
        )
    return (-rows[column]).to_list()
