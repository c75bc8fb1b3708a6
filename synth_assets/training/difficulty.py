"""How hard each training row is, for a curriculum that goes from easy to hard."""

import math
from collections.abc import Sequence

import polars as pl

from synth_assets.training.data import Example
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import Policy, answer_logprobs
from synth_assets.training.specs import OptimizationSpec

ROWS_IN_A_BATCH = 16
COLUMNS = {"reward_margin": "margin", "score": "score"}  # of the rows; the higher, the easier


def difficulty_of(
    spec: OptimizationSpec, policy: Policy, examples: Sequence[Example], rows: pl.DataFrame
) -> list[float]:
    """A number for each example, higher where it is harder; none where the spec has no curriculum.

    "length" is tokens of prompt and answer; "base_perplexity" of the answer under the weights that training starts
    from; "reward_margin" and "score" are columns of the rows, of which a high value is easy: a clear preference, a
    clean row.

    Raises:
        TrainingError: the rows lack the column, or a value in it.
    """
    if spec.order != "curriculum":
        return []
    if spec.difficulty == "length":
        return [float(len(example)) for example in examples]
    if spec.difficulty == "base_perplexity":
        logprobs = answer_logprobs(policy[0], examples, ROWS_IN_A_BATCH)
        return [math.exp(-total / len(e.answer)) for total, e in zip(logprobs, examples, strict=True)]
    column = COLUMNS[spec.difficulty]
    if column not in rows.columns or rows[column].null_count() or not rows[column].is_finite().all():
        raise TrainingError(f"the curriculum by {spec.difficulty} needs a number in the column {column} of every row")
    return (-rows[column]).to_list()
