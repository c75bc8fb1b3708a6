import pytest

from synth_assets.evals.constraints import CONSTRAINTS, holds, instruction, sentences, words

BOTH_SIDES = [
    # type, value, a text that satisfies the constraint, one that just fails it
    ("lines", 2, "one\n\ntwo", "one\ntwo\nthree"),
    ("paragraphs", 2, "one\nstill one\n\ntwo", "one\ntwo"),
    ("sentences", 2, "It rains. Why?", "It rains."),
    ("one_sentence", None, "It costs 3.50 euros.", "It costs 3 euros. Pay."),
    ("items", 2, "Here:\n- a\n- b", "- a\n- b\n- c"),
    ("numbered_list", 2, "Sure:\n1. a\n2. b", "1. a\n3. b"),
    ("bulleted_list", 2, "- a\n* b", "- a\n-b"),
    ("json_keys", ["a", "b"], '```json\n{"a": 1, "b": "x"}\n```', '{"a": 1, "b": ""}'),
    ("json_keys", ["a"], '{"a": 1}', 'Here it is: {"a": 1}'),
    ("words_at_most", 3, "one-way streets ahead", "one two three four"),
    ("words_at_least", 3, "don't walk there", "walk there"),
    ("keyword", "ice", "Cold ICE.", "Cold icing."),
    ("keyword", "blue whale", "A blue  whale swims.", "A blue small whale swims."),
    ("no_keyword", "ice", "Cold icing.", "Ice is cold."),
    ("first_word", "First", '"First, we eat."', "We eat first."),
    ("last_word", "today", "We eat today.", "Today we eat."),
    ("uppercase", None, "WE EAT 2 CAKES.", "WE EAT 2 CAKEs."),
    ("lowercase", None, "we eat 2 cakes.", "we eat 2 Cakes."),
    ("lowercase", None, "we", "12"),
    ("no_commas", None, "we eat and sleep", "we eat, sleep"),
]


@pytest.mark.parametrize(("kind", "value", "good", "bad"), BOTH_SIDES)
def test_constraint_on_both_sides_of_its_edge(kind: str, value: object, good: str, bad: str) -> None:
    assert holds(good, kind, value)
    assert not holds(bad, kind, value)
    assert not holds(" \n", kind, value)  # a blank text satisfies no constraint


def test_every_constraint_is_tested() -> None:
    assert {kind for kind, *_ in BOTH_SIDES} == CONSTRAINTS.keys()
    assert len(CONSTRAINTS) >= 12


def test_instruction_of_a_constraint() -> None:
    assert instruction("lines", 3) == "Write exactly 3 lines."
    assert instruction("json_keys", ["a", "b"]).endswith('the keys "a", "b".')
    with pytest.raises(ValueError, match="unknown constraint 'haiku'; expected one of lines"):
        instruction("haiku", None)
    with pytest.raises(ValueError, match="unknown constraint 'haiku'"):
        holds("a text", "haiku", None)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("Yes", 1), ("Yes. No", 2), ("Wait... what?!", 2), ("Pi is 3.14.", 1), ('"Go." He did.', 2)],
)
def test_sentences(text: str, count: int) -> None:
    assert sentences(text) == count


def test_words_keep_hyphens_and_apostrophes() -> None:
    assert words("Don\u2019t re-read it -- \uff21gain!") == ["don\u2019t", "re-read", "it", "again"]
