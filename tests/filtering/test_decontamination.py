from collections.abc import Callable

import polars as pl
import pytest

from synth_assets.text.decontamination import Decontaminator

Items = Callable[..., pl.DataFrame]
LONG = " ".join(f"item{number}" for number in range(24))  # 17 8-grams


def share(items: pl.DataFrame, instruction: str, response: str = "", cover: float = 0.5) -> tuple[str, float]:
    hits = Decontaminator(items, cover).find(pl.Series([instruction]), pl.Series([response]))
    return hits.item[0], hits.cover[0]


def words(start: int, end: int) -> str:
    return " ".join(LONG.split()[start:end])


def test_a_long_item_is_found_from_half_of_its_8_grams(items_of: Items) -> None:
    items = items_of(LONG)
    assert share(items, f"Now {words(0, 16)} and more") == ("i0", pytest.approx(9 / 17))  # 9 of 17 is above .5
    assert share(items, f"Now {words(0, 15)} and more") == ("", 0.0)  # 8 of 17 is not


def test_both_texts_of_a_row_count_together_and_each_8_gram_once(items_of: Items) -> None:
    items = items_of(LONG)
    assert share(items, words(0, 12), words(12, 24)) == ("i0", pytest.approx(10 / 17))
    assert share(items, words(0, 12), words(0, 12)) == ("", 0.0)  # 5 of 17, though twice


def test_a_short_item_is_found_by_its_8_grams_too(items_of: Items) -> None:
    items = items_of("How many legs does a healthy adult spider have?")  # nine words, two 8-grams
    assert share(items, "Please say: how many legs does a healthy adult spider have? Thanks.") == ("i0", 1.0)
    assert share(items, "How many legs does a healthy adult spider ever have?") == ("i0", 0.5)
    assert share(items, "How many legs does a healthy young spider have?") == ("", 0.0)


def test_a_very_short_item_is_only_found_as_the_whole_instruction(items_of: Items) -> None:
    items = items_of("Add 3 and 4.")
    assert share(items, "add  3 AND 4") == ("i0", 1.0)
    assert share(items, "Add 3 and 4. Then stop.") == ("", 0.0)
    assert share(items, "Add 3 and 5.") == ("", 0.0)
    assert share(items, "Say something.", "Add 3 and 4.") == ("", 0.0)


def test_8_grams_of_many_items_do_not_count_alone(items_of: Items) -> None:
    frame = "Read the question with great care and choose the one best answer from the list of options: "
    items = items_of(*(f"{frame}what about number{n}?" for n in range(5)))
    assert share(items, f"{frame}what about a swan?") == ("", 0.0)
    assert share(items, f"{frame}what about number3?") == ("i3", 1.0)


def test_8_grams_of_many_items_count_together_with_specific_ones(items_of: Items) -> None:
    frame = " ".join(f"frame{number}" for number in range(15))  # 8 8-grams, in five items
    own = [" ".join(f"own{item}word{number}" for number in range(9)) for item in range(5)]
    items = items_of(*(f"{frame} {words}" for words in own))  # 24 words, 17 8-grams, 9 of them an item's own
    halved = own[2].split()[0]  # with the frame one own 8-gram: 9 of 17
    assert share(items, f"{frame} {halved} and so on") == ("i2", pytest.approx(9 / 17))
    assert share(items, f"{frame} and so on") == ("", 0.0)


@pytest.mark.parametrize(
    "instruction",
    [
        "Question: What is the boiling point of gold?",
        "What is the boiling point of gold?\nA. 2,970 degrees\nB. 100 degrees",
        "Q: What is the boiling point of gold?\n(a) 2,970 degrees\n(b) 100 degrees\nAnswer:",
    ],
)
def test_a_short_item_is_found_with_labels_and_choices(items_of: Items, instruction: str) -> None:
    choices = pl.Series([["2,970 degrees", "100 degrees"]])
    items = items_of("What is the boiling point of gold?").with_columns(choices=choices, kind=pl.lit("choice"))
    assert share(items, instruction) == ("i0", 1.0)
    assert share(items, instruction.replace("gold", "lead")) == ("", 0.0)


def test_a_generic_question_matches_only_with_its_choices(items_of: Items) -> None:
    prompts = ["Which of these is true?", "Which of these is true?", "Which of the following is false?"]
    choices = pl.Series([["Cats bark.", "Dogs bark."], ["Ice is hot.", "Ice is cold."], ["Tin is soft.", "Tin rusts."]])
    items = items_of(*prompts).with_columns(choices=choices, kind=pl.lit("choice"))
    assert share(items, "Which of these is true?") == ("", 0.0)
    assert share(items, "Which of the following is false?") == ("", 0.0)
    assert share(items, "Which of these is true?\nA. Ice is hot.\nB. Ice is cold.") == ("i1", 1.0)
    assert share(items, "Which of the following is false?\nTin is soft.\nTin rusts.") == ("i2", 1.0)


def test_the_same_prompt_in_two_suites_is_one_item(items_of: Items) -> None:
    assert share(items_of(LONG, LONG, LONG, LONG, LONG), LONG) == ("i0", 1.0)


def test_each_row_is_checked_on_its_own(items_of: Items) -> None:
    hits = Decontaminator(items_of(LONG, "Add 3 and 4."), 0.5).find(
        pl.Series(["", "Add 3 and 4.", "nothing", LONG]), pl.Series(["", "", LONG, ""])
    )
    assert hits.item == ["", "i1", "i0", "i0"]


def test_no_items_are_an_error(items_of: Items) -> None:  # fault 10
    with pytest.raises(ValueError, match="there are no items"):
        Decontaminator(items_of(), 0.5)
