"""Agreement of two reviewers who judged the same rows."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Agreement:
    """Agreement of two reviewers on the `n` rows that both judged: observed rate and Cohen's kappa (NaN: undefined)."""

    first: str
    second: str
    n: int
    observed: float
    kappa: float


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Return Cohen's kappa (Cohen 1960): agreement beyond what the reviewers' own rates give by chance.

    Returns:
        -1..1; NaN if both reviewers gave a single, equal category, so that chance agrees always.

    Raises:
        ValueError: the lengths differ, or there are no ratings.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"kappa needs two equally long, non-empty lists, got {len(first)} and {len(second)}")
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    rates, others = Counter(first), Counter(second)
    expected = sum(rates[category] * others[category] for category in rates) / n**2
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


def agreements(verdicts: Mapping[str, Mapping[str, str]]) -> list[Agreement]:
    """Return the agreement of every two reviewers with rows in common, most rows first.

    Args:
        verdicts: row id -> reviewer -> verdict.
    """
    names = sorted({name for row in verdicts.values() for name in row})
    found: list[Agreement] = []
    for first, second in combinations(names, 2):
        both = [(row[first], row[second]) for row in verdicts.values() if first in row and second in row]
        if both:
            one, other = zip(*both, strict=True)
            observed = sum(a == b for a, b in both) / len(both)
            found.append(Agreement(first, second, len(both), observed, cohens_kappa(one, other)))
    return sorted(found, key=lambda each: (-each.n, each.first, each.second))


def agreement_text(agreement: Agreement) -> str:
    """Return a line: "ada and ben: kappa 0.62, 41 of 50 rows alike (82%)"."""
    kappa = "undefined (one verdict only)" if math.isnan(agreement.kappa) else f"{agreement.kappa:.2f}"
    alike = round(agreement.observed * agreement.n)
    return (
        f"{agreement.first} and {agreement.second}: kappa {kappa}, {alike:,} of {agreement.n:,} rows alike "
        f"({agreement.observed:.0%})"
    )
