"""A task of the mini world, and the constraints that an instruction can put on the form of its answer."""

from dataclasses import dataclass

CONSTRAINTS = {
    "": "",
    "sure": " Start with the word Sure.",
    "thanks": " End with the words Thank you.",
    "quotes": " Put the answer in quotes.",
    "dash": " Start with a dash.",
}
LIST_STYLES = {"numbers": "", "commas": " Use commas.", "dashes": " Use dashes."}


@dataclass(frozen=True)
class Task:
    """One instruction and what its answers are made of.

    Attributes:
        instruction: the words of the user.
        key: the instruction without its constraint; the unit of splitting and of clustered statistics.
        category: the kind of content; decides which verifier applies.
        group: the category as it is reported: facts are `fact` or `fact_constrained`.
        sentence: the answer as a format string with `{value}` and `{a}` (the value's article); empty for lists.
        value: the right content; for a list its name, for a harmful request the deed.
        wrong_values: plausible wrong contents in a fixed order, never `value`.
        myth: the wrong value that many believe, or empty.
        constraint: a key of CONSTRAINTS, or of LIST_STYLES where the category is `list`.
        count: how many entries a list has; 0 elsewhere.
        subject: what a fact is about, or the word of a spelling task.
        relation: the key of `relations()` for facts.
    """

    instruction: str
    key: str
    category: str
    group: str
    sentence: str
    value: str
    wrong_values: tuple[str, ...] = ()
    myth: str = ""
    constraint: str = ""
    count: int = 0
    subject: str = ""
    relation: str = ""


def key_of(instruction: str) -> str:
    """Return the instruction without a constraint at its end."""
    for suffix in (*CONSTRAINTS.values(), *LIST_STYLES.values()):
        if suffix and instruction.endswith(suffix):
            return instruction.removesuffix(suffix)
    return instruction
