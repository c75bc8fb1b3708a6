"""Pass rate of each rule at other thresholds, counted chunk by chunk."""

import numpy as np
import polars as pl

from synth_assets.stages.filtering.features import Features, Floats
from synth_assets.stages.filtering.rules import RULES, Rule

FACTORS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
"""Multiples of the current threshold."""

SWEPT = tuple(rule for rule in RULES if rule.limit and not rule.limit.endswith("_tokens"))
"""Token limits are left out: tokens are counted only where they may exceed the current limit."""


class PassRates:
    """Number of rows that each rule alone passes, in constant memory."""

    def __init__(self) -> None:
        """Start without rows."""
        self._rows = 0
        self._limits = dict.fromkeys((rule.reason for rule in SWEPT), 0.0)
        self._passed = {rule.reason: np.zeros(len(FACTORS), np.int64) for rule in SWEPT}

    def add(self, rule: Rule, rows: Features, values: Floats) -> None:
        """Count a rule's values for a chunk; rules without a threshold are ignored."""
        if rule.reason not in self._passed:
            return
        limit = self._limits[rule.reason] = rule.threshold(rows)
        beyond = [values < limit * factor if rule.least else values > limit * factor for factor in FACTORS]
        self._passed[rule.reason] += len(rows) - np.count_nonzero(beyond, axis=1)
        self._rows += len(rows) if rule is SWEPT[0] else 0

    def table(self) -> pl.DataFrame:
        """Return reason, limit (current), threshold and pass_rate (0..1, of all rows), for each rule and factor."""
        parts = [
            {
                "reason": reason,
                "limit": self._limits[reason],
                "threshold": self._limits[reason] * factor,
                "passed": passed,
            }
            for reason, counts in self._passed.items()
            for factor, passed in zip(FACTORS, counts.tolist(), strict=True)
        ]
        return pl.DataFrame(parts).select(
            "reason", "limit", "threshold", pass_rate=pl.col("passed") / max(self._rows, 1)
        )


def markdown(rates: pl.DataFrame) -> str:
    """Return one row for each rule: its limit, and the pass rate at each multiple of it."""
    header = " | ".join(f"{factor:g} x" for factor in FACTORS)
    lines = [f"| rule alone, at | limit | {header} |", "|---|---:|" + "---:|" * len(FACTORS)]
    for (reason, limit), group in rates.group_by("reason", "limit", maintain_order=True):
        shown = " | ".join(f"{rate:.2%}" for rate in group.sort("threshold")["pass_rate"])
        lines.append(f"| {reason} | {limit:g} | {shown} |")
    return "\n".join(lines)
