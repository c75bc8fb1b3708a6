"""What a row's score says, 0..1; the one place where a scorer that learned from labels takes over from the margins."""

from collections.abc import Mapping

import numpy as np

from synth_assets.stages.filtering.features import Features, Floats
from synth_assets.stages.filtering.rules import RULES

SMALLEST_LIMIT = 1e-9  # a limit of 0 leaves no distance to measure


def score(rows: Features, measured: Mapping[str, Floats]) -> Floats:
    """The distance to rejection: the smallest share of its limit that a row leaves free among the graded rules.

    Args:
        rows: a chunk.
        measured: the values of each rule by its reason, each of shape (rows,).

    Returns:
        (rows,) 1 where no graded rule had anything to measure, 0 at the edge and beyond it.
    """
    least = np.ones(len(rows))
    for rule in RULES:
        if rule.graded:
            free = 1 - measured[rule.reason] / max(rule.threshold(rows), SMALLEST_LIMIT)
            least = np.fmin(least, np.clip(free, 0, 1))
    return least
