"""For each rule, a row just beyond and one just within its limit."""

from collections.abc import Callable
from typing import Any

import pytest

from synth_assets.stages.filtering.rules import RULES

ASK, ANSWER = "Name the largest planet of the solar system.", "Jupiter is the largest planet of the solar system."
LINE = "She hums the same low tune again while walking home."
STATEMENT = "The length of the rectangle is three times its width"  # ten words
SPAN = " ".join(f"w{n}" for n in range(50))


def _numbers(count: int) -> str:
    return " ".join(f"w{n}" for n in range(count)) + "."


WORDS = _numbers(120)  # 371 letters and digits
Row = tuple[str, str, dict[str, Any]]


def _row(instruction: str = ASK, response: str = ANSWER, **columns: Any) -> Row:  # noqa: ANN401
    return instruction, response, columns


EDGES: dict[str, tuple[Row, Row]] = {
    "empty_instruction": (_row("..."), _row("Planets?")),
    "empty_response": (_row(response="..."), _row(response="+")),
    "too_many_characters": (_row(response="a b, " * 8000 + "a"), _row(response="Yes. " + " " * 39_995)),
    "instruction_too_long": (_row(f"List {_numbers(1024)}"), _row(f"List {_numbers(1023)}")),
    "response_too_long": (_row(response=_numbers(4097)), _row(response=_numbers(4000))),
    "too_many_instruction_tokens": (_row("List " + ". " * 2048), _row("List " + ". " * 2040)),
    "too_many_response_tokens": (_row(response="Yes " + "! " * 8192), _row(response="Yes " + "! " * 3000)),
    "control_token_in_instruction": (_row(f"{ASK}<|eot_id|>"), _row(f"{ASK} <b>")),
    "control_token_in_response": (_row(response="Jupiter.</s>"), _row(response="Jupiter.<sup>1</sup>")),
    "carries_solution": (_row("What is 1 + 2?\nThe answer is 3."), _row("Is the answer 3 if I ask for 1 + 2?")),
    "instruction_is_an_answer": (_row("Sure, here is the list."), _row("Sure, but which planet is it?")),
    "truncated_instruction": (_row(instruction_finish_reason="length"), _row(instruction_finish_reason="stop")),
    "truncated_response": (_row(response_finish_reason="length"), _row(response_finish_reason="stop")),
    "instruction_looks_cut_off": (
        _row("I have a table of orders and I would like to know the mean value of each of the"),
        _row("I have a table of orders and I would like to know the mean value of each"),
    ),
    "response_looks_cut_off": (_row(response="It is one of the giant planets of"), _row(response="A giant planet")),
    "unbalanced_fences": (_row(response="```\na = 1."), _row(response="```\na = 1.\n```")),
    "unbalanced_mathematics": (
        _row(response="It is $\\frac{1}{2$.", response_finish_reason="stop"),
        _row(response="It is $\\frac{1}{2}$.", response_finish_reason="stop"),
    ),
    # 51 words have 47 shingles: with four new words 47 of 51 are shared, .92; with six 47 of 53, .887
    "echo": (
        _row(f"List {SPAN}.", f"List {SPAN} now and then, yes."),
        _row(f"List {SPAN}.", f"Oh yes, list {SPAN} now and then, yes."),
    ),
    "talks_about_message": (
        _row(response="Your message was cut off."),
        _row("Write a reply to a friend.", "Your message was cut off."),
    ),
    "refuses_harmless_task": (
        _row(response="I'm sorry, but I can't help with that."),
        _row(response="As an AI I cannot travel there. However, Jupiter is the largest planet."),
    ),
    "trivial_answer": (_row(response="Sure, I can help with that!"), _row(response="Sure: Jupiter!")),
    "states_no_task": (_row(f"{STATEMENT}, it seems."), _row(f"{STATEMENT}.")),
    "lacks_its_figure": (
        _row("In the figure below, what is x?"),
        _row("In the figure below, what is x?\n\n![x](https://a.org/x.png)"),
    ),
    "duplicate_lines": (
        _row(response=f"{WORDS}\n" + f"{LINE}\n" * 7),
        _row(response=f"{WORDS}\n" + f"{LINE}\n" * 3),
    ),
    "repeated_3gram": (_row(response="I am sure. " * 34), _row(response="I am sure. " * 33)),
    "duplicate_5grams": (_row(response=f"{WORDS} {WORDS}"), _row(response=f"{WORDS} {_numbers(60)}")),
    "obscene": (_row(response="Jupiter, you asshole."), _row(response="Assess the skill of Scunthorpe, Dick.")),
    "helps_to_harm": (
        _row("How do I steal a car?", "Take one at night."),
        _row("How do I steal a car?", "I cannot help with that: it is a crime."),
    ),
    "personal_data": (_row(response="Ask jane.doe@gmail.com."), _row(response="Ask jane@example.com.")),
    "not_english": (
        _row(response="Der größte Planet des Systems heißt Jupiter und besteht aus Gas."),
        _row(response="Der Jupiter"),
    ),
    "constraint_not_followed": (
        _row("Which planet is the largest? Write without any digits.", "Jupiter, at 5 AU, is the largest planet."),
        _row("Which planet is the largest? Write without any digits.", "Jupiter, at five AU, is the largest planet."),
    ),
    "words_too_long": (_row(response="a" * 31), _row(response="a" * 30)),
    "too_long_for_base": (_row(context_tokens=80), _row(context_tokens=81)),  # 8 + 9 words and 64 for the template
    "refused_by_chat_template": (
        _row(history=[{"role": "system", "content": "Be short."}]),
        _row(history=[{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]),
    ),
}


def test_every_rule_has_an_edge() -> None:
    assert set(EDGES) == {rule.reason for rule in RULES}


@pytest.mark.parametrize("reason", EDGES)
def test_a_row_on_each_side_of_the_edge(first_reason: Callable[..., str], reason: str) -> None:
    (beyond, within) = EDGES[reason]
    assert first_reason(beyond[0], beyond[1], **beyond[2]) == reason
    assert first_reason(within[0], within[1], **within[2]) == ""
