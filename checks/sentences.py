"""Sentences of check evaluations: what was found, against which limit, and what to do about a failure."""

from collections.abc import Sequence

MAX_EXAMPLES = 3
MAX_EXAMPLE_CHARACTERS = 120
RUN_AGAIN = "Materialise the asset again; if the check still fails, report it with the examples in the metadata"


def sentence(found: str, limit: str, remedy: str, *, passed: bool) -> str:
    """Return "found; limit", followed by the remedy if the check failed."""
    return f"{found}; {limit}." if passed else f"{found}; {limit}. {remedy}."


def none_allowed(problems: Sequence[str], what: str, remedy: str) -> str:
    """Return the sentence of a check that allows no problem, with some examples of `what` was found."""
    shown = [problem[:MAX_EXAMPLE_CHARACTERS] for problem in problems[:MAX_EXAMPLES]]
    examples = f" ({'; '.join(shown)}{'; ...' if len(problems) > MAX_EXAMPLES else ''})" if shown else ""
    return sentence(f"{len(problems):,} {what}{examples}", "none allowed", remedy, passed=not problems)
