"""Constraints of training prompts: a sentence for each, found again at the end of a prompt, verified by a program."""

from collections import Counter

import pytest

from synth_assets.evals.constraints import CONSTRAINTS, instruction
from synth_assets.evals.suites.instruction_following import items
from synth_assets.evals.training_constraints import (
    TRAINING_CONSTRAINTS,
    Asked,
    draw_constraints,
    ends_with_constraint,
    split_constraints,
    with_constraints,
)

HOLDS = {
    # kind: value, a text that just holds it, a text that just does not
    "no_digits": (None, "Two planets.", "2 planets."),
    "numbers_at_least": (2, "From 1 to 20.", "About 20."),
    "characters_below": (150, "a" * 149, "a" * 150),
    "short_sentences": (12, f"{'one ' * 11}two. {'one ' * 11}two.", f"{'one ' * 12}two."),
    "no_apostrophe": (None, "It is.", "It's."),
    "hyphen": (None, "A well-known one.", "A 2-3 - one."),
    "colon": (None, "So: yes.", "So; yes."),
    "no_question": (None, "It is.", "Is it? It is."),
    "ends_with_question": (None, "It is. And you?", "And you? It is."),
    "no_letter": ("x", "It is.", "It is Xenon."),
    "title": (None, "<<Two planets>>\nIt is.", "<< >\nIt is."),
    "example": (None, "It is. For example, Mars.", "It is. For example,"),
    "postscript": (None, "It is.\nP.S. And warm.", "It is.\nP.S. And"),
}


def test_no_type_and_no_sentence_is_one_of_the_suite() -> None:
    assert not TRAINING_CONSTRAINTS.keys() & CONSTRAINTS.keys()
    sentences = {Asked(kind, value).sentence for kind, row in TRAINING_CONSTRAINTS.items() for value in row.values}
    assert len(sentences) == sum(len(row.values) for row in TRAINING_CONSTRAINTS.values())
    assert not any(sentence in item.prompt for sentence in sentences for item in items())


@pytest.mark.parametrize("kind", TRAINING_CONSTRAINTS)
def test_a_text_on_each_side_of_the_edge(kind: str) -> None:
    value, within, beyond = HOLDS[kind]
    assert value in TRAINING_CONSTRAINTS[kind].values
    assert Asked(kind, value).holds(f" {within}\n")
    assert not Asked(kind, value).holds(beyond)
    assert not Asked(kind, value).holds(" ")


@pytest.mark.parametrize("instruction", ["Name a planet.", "Name a planet", "Add these:\n1\n2", "Why?"])
def test_constraints_are_found_again_at_the_end(instruction: str) -> None:
    for seed in range(200):
        drawn = draw_constraints(seed)
        text, found = split_constraints(with_constraints(instruction, drawn) + "\n")
        assert found == drawn
        assert text.rstrip(".") == instruction.rstrip(".")


def test_an_instruction_without_constraints_stays_as_it_is() -> None:
    assert with_constraints("Name a planet", []) == "Name a planet"
    assert split_constraints("Name a planet.") == ("Name a planet.", [])
    assert not ends_with_constraint(f"Name a planet. {instruction('lines', 3)}")
    assert not ends_with_constraint("Put in at least one colon. Why?")
    assert ends_with_constraint("Why? Put in at least one colon. ")


def test_drawn_constraints_are_of_different_aspects_and_all_types_occur() -> None:
    drawn = [draw_constraints(seed) for seed in range(2_000)]
    assert drawn == [draw_constraints(seed) for seed in range(2_000)]
    sizes = Counter(map(len, drawn))
    assert sizes.keys() == {1, 2}
    assert 0.16 < sizes[2] / 2_000 < 0.24  # .2, with a standard error of .01
    assert {asked.kind for each in drawn for asked in each} == TRAINING_CONSTRAINTS.keys()
    for each in drawn:
        assert len({TRAINING_CONSTRAINTS[asked.kind].aspect for asked in each}) == len(each)
