"""Constraint rule: the response follows the verifiable constraints at the end of its instruction."""

import numpy as np

from synth_assets.evals.training_constraints import ends_with_constraint, split_constraints
from synth_assets.stages.filtering.features import Features, Floats, Side


def violated_constraints(rows: Features) -> Floats:
    """Count the constraints that a response violates; NaN where the instruction has none."""
    counts = np.full(len(rows), np.nan)
    pairs = zip(rows.text("instruction").to_list(), rows.text("response").to_list(), strict=True)
    for index, (instruction, response) in enumerate(pairs):
        if ends_with_constraint(instruction):
            counts[index] = sum(not constraint.holds(response) for constraint in split_constraints(instruction)[1])
    return counts


def violation_texts(rows: Features) -> list[str]:
    """Return the sentences of the violated constraints of each row."""
    return rows.shared(_violated_sentences, "response")


def _violated_sentences(rows: Features, _: Side) -> list[str]:
    pairs = zip(rows.text("instruction").to_list(), rows.text("response").to_list(), strict=True)
    return [
        " ".join(
            constraint.sentence for constraint in split_constraints(instruction)[1] if not constraint.holds(response)
        )
        for instruction, response in pairs
    ]
