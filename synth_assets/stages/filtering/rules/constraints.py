"""Whether a response holds the constraints that a program put at the end of its instruction."""

import numpy as np

from synth_assets.evals.training_constraints import ends_with_constraint, split_constraints
from synth_assets.stages.filtering.features import Features, Floats, Side


def broken(rows: Features) -> Floats:
    """How many constraints of each row do not hold; NaN where the instruction has none."""
    counts = np.full(len(rows), np.nan)
    pairs = zip(rows.text("instruction").to_list(), rows.text("response").to_list(), strict=True)
    for place, (instruction, response) in enumerate(pairs):
        if ends_with_constraint(instruction):
            counts[place] = sum(not asked.holds(response) for asked in split_constraints(instruction)[1])
    return counts


def told(rows: Features) -> list[str]:
    """The sentences of the constraints that do not hold, for each row."""
    return rows.shared(_broken_sentences, "response")


def _broken_sentences(rows: Features, _: Side) -> list[str]:
    pairs = zip(rows.text("instruction").to_list(), rows.text("response").to_list(), strict=True)
    return [
        " ".join(asked.sentence for asked in split_constraints(instruction)[1] if not asked.holds(response))
        for instruction, response in pairs
    ]
