"""Tasks of the embedded world, and the formatting constraints of their instructions."""

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
    """One instruction and the content of its answers.

    Attributes:
        instruction: text of the user message.
        key: the instruction without its constraint; the unit of splits and of clustered statistics.
        category: kind of content; selects the verifier.
        group: category in reports: facts are `fact` or `fact_constrained`.
        sentence: the answer as a format string with `{value}` and `{a}` (the value's article); empty for lists.
        value: the correct content; for a list its name, for a harmful request the action.
        wrong_values: plausible wrong values in a fixed order, without `value`.
        myth: a common misconception among the wrong values, or empty.
        constraint: key of CONSTRAINTS, or of LIST_STYLES if the category is `list`.
        count: number of list entries; 0 for other categories.
        subject: subject of a fact, or word of a spelling task.
        relation: key of `relations()` for facts.
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
    """Return the instruction without its trailing constraint."""
    for suffix in (*CONSTRAINTS.values(), *LIST_STYLES.values()):
        if suffix and instruction.endswith(suffix):
            return instruction.removesuffix(suffix)
    return instruction
