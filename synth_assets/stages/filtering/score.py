"""Score of a row, 0..1: its distance to the limits of the graded rules. A learned scorer would replace this module."""

from collections.abc import Mapping

import numpy as np

from synth_assets.stages.filtering.features import Features, Floats
from synth_assets.stages.filtering.rules import RULES

SMALLEST_LIMIT = 1e-9  # avoids a division by a limit of 0


def score(rows: Features, measured: Mapping[str, Floats]) -> Floats:
    """Return the distance to rejection: the smallest relative distance to a limit among the graded rules.

    Args:
        rows: a chunk.
        measured: values of each rule by its reason, each of shape (rows,).

    Returns:
        (rows,) 1 if no graded rule applies, 0 at a limit and beyond it.
    """
    least = np.ones(len(rows))
    for rule in RULES:
        if rule.graded:
            free = 1 - measured[rule.reason] / max(rule.threshold(rows), SMALLEST_LIMIT)
            least = np.fmin(least, np.clip(free, 0, 1))
    return least
