from collections.abc import Callable
from random import Random

import polars as pl
import pytest

from synth_assets.embedded.answers import good_answer
from synth_assets.embedded.world import catalogue
from synth_assets.stages.filtering.apply import FilterResult
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.rules.safety import luhn_valid
from synth_assets.stages.filtering.spec import FilterSpec

FirstReason = Callable[..., str]
ASK = "Name the largest planet of the solar system."
ANSWER = "Jupiter is the largest planet of the solar system."
STORY = (
    "The old keeper of the lighthouse climbed the narrow stairs every evening before the sun touched the sea. He "
    "carried oil in a small can, and he counted the steps aloud, because his mother had taught him that numbers "
    "keep a man awake. From the gallery he could see the fishing boats turn towards the harbour, one after "
    "another, like sheep that know the way home. On stormy nights he rang the bell himself, since he trusted no "
    "machine to do it, and more than once a crew came up the path next morning with bread, cheese and quiet "
    "thanks for somebody they had never seen before in their lives."
)


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        (ASK, ANSWER),
        ("Hello!", "Hello! How can I help you?"),
        ("Add 3 and 4.", "3 plus 4 is 7."),
        ("List 3 fruits. Use dashes.", "- apple\n- pear\n- plum"),
        ("List 3 fruits.", "1. red\n2. blue\n3. green"),
        ("How many legs has a dog? Put the answer in quotes.", '"A dog has 4 legs."'),
        ("Spell cat backwards.", "The word cat backwards is tac."),
        ("How do I steal a car?", "I am sorry, but I cannot help with that."),
        ("Name a lake.", "Lake Como."),
        ("Evaluate the claim. Output 1 for true, 2 for false.\n\nFish can fly.", "3"),
        ("What is the sentiment? Output a number.", "0.5"),
        ("Tell me a story about a lighthouse.", STORY),
        ("Name 3 programming languages.", "1. Java\n2. Python\n3. C++"),
        ("Translate to French: Where is the library of this town?", "Où se trouve la bibliothèque de cette ville ?"),
        ("Write a function that adds two numbers.", "```python\ndef add(a, b):\n    return a + b\n```"),
        ("Solve $x^2 = 4$.", "\\[x = \\pm 2\\] since $\\frac{4}{1} = 4$.\n\nThe final answer is: $\\boxed{\\pm 2}$"),
        (
            "Which sights in Rome would you like?",
            "As an AI, I have no favourites. However, the Colosseum and the Forum are popular sights.",
        ),
        ("Q: What is 1 + 1?\nA: The answer is 2.\nQ: What is 2 + 2?", "The answer is 4."),
        ("Here is some information about a shop: name = Rose. Write a sentence about it", "Rose is a shop."),
        ("Complete the following sentence.\n\nAnna filed the papers on Monday because", "It was the last day."),
        ("Translate to English: Unde este biblioteca acestui oraș mare și frumos?", "Where is the library?"),
        ("Summarize this: the skill of a killer whale is to hunt in groups.", "Killer whales hunt skillfully."),
    ],
)  # fmt: skip
def test_good_rows_pass(first_reason: FirstReason, instruction: str, response: str) -> None:
    assert first_reason(instruction, response) == ""


@pytest.mark.parametrize(
    ("reason", "instruction", "response"),
    [
        ("empty_instruction", " \n", ANSWER),
        ("empty_instruction", "<noinput>", ANSWER),
        ("empty_response", ASK, ""),
        ("empty_response", ASK, "<nooutput>"),
        ("empty_response", ASK, "..."),
        ("control_token_in_instruction", "Name a planet.<|eot_id|>", ANSWER),
        ("control_token_in_response", ASK, "Jupiter.</s>"),
        ("control_token_in_response", ASK, "[INST] Name another. [/INST] Saturn."),
        ("control_token_in_response", ASK, "Jupiter.<|im_end|>"),
        ("control_token_in_response", ASK, "Jupiter.<end_of_turn>"),
        ("control_token_in_response", ASK, "Jupiter.\nassistant\n\nSaturn."),
        ("control_token_in_response", ASK, "Jupiter.\n### Instruction:\nName another."),
        ("carries_solution", "## Step 1: Understand the problem\nWe add 1 and 2.", ANSWER),
        ("carries_solution", "What is 1 + 2?\nThe final answer is: $\\boxed{3}$", ANSWER),
        ("carries_solution", "What is 1 + 2?\nA) 3\nB) 4\nThe correct answer is A.", ANSWER),
        ("carries_solution", f"What does a keeper of a lighthouse do?\n{STORY}", ANSWER),
        ("instruction_is_an_answer", "Sure, here is the list of the largest planets.", ANSWER),
        ("unbalanced_fences", ASK, "```python\nprint('Jupiter')\nprint('Saturn')"),
        ("echo", ASK, ASK.upper()),
        ("talks_about_message", ASK, "It seems like your message was cut off. What do you want to know about planets?"),
        ("talks_about_message", ASK, "This response does not follow the requested format, so here it is again."),
        ("talks_about_message", ASK, "There is no specific number given in the problem, so I assume one."),
        ("refuses_harmless_task", ASK, "I'm sorry, but I cannot help with that."),
        ("refuses_harmless_task", ASK, "As an AI language model, I do not have access to planets."),
        ("refuses_harmless_task", ASK, "I'm sorry for the confusion. However, I can guide you."),
        ("refuses_harmless_task", ASK, "While I'm an AI, I'm unable to do that. Instead, ask a friend."),
        ("trivial_answer", ASK, "Sure!"),
        ("trivial_answer", "Write a short story about a fox.", "The fox."),
        ("states_no_task", "The length of the rectangle is three times its width, and its area is 48 cm.", ANSWER),
        ("lacks_its_figure", "In the diagram below, what is the value of x?", "The value of x is 4."),
        ("obscene", ASK, "Jupiter, you fucking genius."),
        ("helps_to_harm", "How do I steal a car?", "First, find a way to steal a car. Then do it at night."),
        ("personal_data", ASK, "Ask jane.doe@gmail.com about it."),
        ("personal_data", ASK, "Call +1 (212) 867-5309 and ask."),
        ("personal_data", ASK, "Use the card 4539 1488 0343 6467 for it."),
        ("personal_data", ASK, "Use AKIAIOSFODNN7EXAMPLE as the key."),
        ("personal_data", ASK, "Connect to 93.184.216.34 for the list."),
        ("not_english", "¿Cuál es el planeta más grande del sistema solar?", "Júpiter es el planeta más grande."),
        ("not_english", "太阳系中最大的行星是什么", "木星是太阳系中最大的行星。"),
        ("not_english", ASK, "Der größte Planet unseres Sonnensystems heißt Jupiter und besteht vor allem aus Gas."),
    ],
)  # fmt: skip
def test_bad_rows_are_rejected(first_reason: FirstReason, reason: str, instruction: str, response: str) -> None:
    assert first_reason(instruction, response) == reason


@pytest.mark.parametrize(
    ("harmless", "harmful"),
    [
        ("How can I steal a base in baseball?", "How can I steal a base of the army's weapons?"),
        ("How do I kill a Python process that hangs?", "How do I kill the process server who came to my door?"),
        ("How can I kill an ant colony without poison?", "How can I kill my neighbour?"),
        ("What is the best way to blow up a balloon?", "What is the best way to blow up a bridge?"),
        ("How do I break into the tech industry?", "How do I break into the tech store?"),
        ("Tell me how to forge a knife at home.", "Tell me how to forge a passport."),
        ("How do I launder wool sweaters?", "How do I launder money?"),
        ("How to make bath bombs with children?", "How to make pipe bombs with children?"),
        ("How do I build a malware scanner?", "How do I build malware?"),
    ],
)
def test_a_harmful_verb_may_have_a_harmless_meaning(first_reason: FirstReason, harmless: str, harmful: str) -> None:
    answer = "First find out what you need. Then do it, step by step, and tidy up afterwards."
    assert first_reason(harmless, answer) == ""
    assert first_reason(harmful, answer) == "helps_to_harm"
    assert first_reason(f"{harmless} And: {harmful}", answer) == "helps_to_harm"
    assert first_reason(harmless, "I'm sorry, but I can't help with that.") == "refuses_harmless_task"


@pytest.mark.parametrize(
    "response",
    [
        "Write to you@example.com or call (555) 123-4567.",
        "The server is at 192.168.0.1, and 8.8.8.8 answers names.",
        "The card 4539 1488 0343 6468 fails its check digit; 4111 1111 1111 1111 is for tests.",
        "Version 10.2.3 came out in 2021-03-04 with 1000000 users.",
    ],
)
def test_reserved_example_values_are_no_personal_data(first_reason: FirstReason, response: str) -> None:
    assert first_reason(ASK, response) == ""


@pytest.mark.parametrize(("finish", "reason"), [("length", True), ("stop", False)])
@pytest.mark.parametrize("side", ["instruction", "response"])
def test_generated_text_is_truncated_if_its_finish_reason_is_length(
    first_reason: FirstReason, side: str, finish: str, reason: bool
) -> None:
    ends = {"instruction_finish_reason": "stop", "response_finish_reason": "stop", f"{side}_finish_reason": finish}
    assert first_reason(ASK, "It is one of the", **ends) == (f"truncated_{side}" if reason else "")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("The bird serves as a reminder of the importance of", "response_looks_cut_off"),
        ("The roots are $\\frac{1}{2}$ and $\\frac{1}{", "response_looks_cut_off"),
        (f"{STORY} Then one night he heard somebody call his name", "response_looks_cut_off"),
        (f"{STORY} Then one night he heard somebody call his name.", ""),
        (f"{STORY}\n\n- bread and cheese for the man at the light", ""),
        ("Rainbow Hummus Wrap", ""),
    ],
)
def test_imported_text_is_checked_by_its_end(first_reason: FirstReason, response: str, reason: str) -> None:
    assert first_reason(ASK, response) == reason


def _numbered(words: int) -> str:
    return " ".join(f"w{number}" for number in range(words))


@pytest.mark.parametrize(
    ("instruction_words", "response_words", "reason"),
    [
        (1024, 20, ""),
        (1025, 20, "instruction_too_long"),
        (20, 3000, ""),
        (20, 4097, "response_too_long"),
    ],
)
def test_length_in_words(first_reason: FirstReason, instruction_words: int, response_words: int, reason: str) -> None:
    instruction, response = f"List {_numbered(instruction_words - 1)}?", f"{_numbered(response_words)}."
    assert first_reason(instruction, response) == reason


@pytest.mark.parametrize(("letters", "reason"), [(30, ""), (31, "words_too_long")])
def test_words_of_a_text_are_not_too_long_on_average(first_reason: FirstReason, letters: int, reason: str) -> None:
    assert first_reason(ASK, "a" * letters) == reason


def test_a_text_beyond_the_character_limit_is_always_rejected(first_reason: FirstReason) -> None:
    assert first_reason(ASK, "a" * 40_001) == "too_many_characters"
    assert first_reason(ASK, "x" * 1_000_000) == "too_many_characters"


@pytest.mark.parametrize(("context", "reason"), [(81, ""), (80, "too_long_for_base")])
def test_conversation_and_template_must_fit_the_base(first_reason: FirstReason, context: int, reason: str) -> None:
    # 8 words of ASK and 9 of ANSWER are 17 tokens, and the template is allowed 64: 81
    assert first_reason(ASK, ANSWER, context_tokens=context) == reason
    assert FilterSpec().template_tokens == 64


def test_earlier_turns_count_towards_the_base_context(first_reason: FirstReason) -> None:
    history = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]
    assert first_reason(ASK, ANSWER, context_tokens=83, history=history) == "too_long_for_base"  # 17 + 3 + 64 = 84
    assert first_reason(ASK, ANSWER, context_tokens=84, history=history) == ""


@pytest.mark.parametrize(("repeats", "reason"), [(1, ""), (2, "duplicate_lines")])
def test_repeated_lines(first_reason: FirstReason, repeats: int, reason: str) -> None:
    # the story has 560 characters or so; a line of 200 said again is a fifth to a quarter of it all
    line = STORY[:199] + "."
    response = "\n".join([STORY, *[line] * repeats])
    assert first_reason("Tell me a story.", response) == reason


def test_repeated_words(first_reason: FirstReason) -> None:
    assert first_reason("Tell me a story.", "I am sure. " * 40) == "repeated_3gram"
    assert first_reason("Tell me a story.", "I am sure. " * 30) == ""  # 90 words: too few to measure


def test_a_repeated_long_passage(first_reason: FirstReason) -> None:
    # 109 words said twice: half of the letters but for the first five words of the repetition's neighbour
    assert first_reason("Tell me a story.", f"{STORY} {STORY}") == "duplicate_5grams"


def test_good_rows_of_the_embedded_world_pass(
    filtered: Callable[..., FilterResult], rows_of: Callable[..., pl.DataFrame]
) -> None:
    random = Random(0)
    tasks = random.sample(list(catalogue().values()), 2000)
    result = filtered(rows_of(*((task.instruction, good_answer(task, random)) for task in tasks)))
    assert set(result.reasons) <= {"near_duplicate"}
    assert result.reasons.get("near_duplicate", 0) <= 20


def test_luhn() -> None:
    assert luhn_valid("4111111111111111")  # 4x2=8, seven 1x2 and eight 1: 8+14+8 = 30
    assert not luhn_valid("4111111111111112")


def test_reasons_are_unique_and_cover_six_families() -> None:
    assert len({rule.reason for rule in RULES}) == len(RULES)
    assert {rule.family for rule in RULES} == {"length", "language", "repetition", "format", "safety", "content"}
    assert all(hasattr(FilterSpec(), rule.limit) for rule in RULES if rule.limit not in {"", "context_tokens"})


@pytest.mark.parametrize(
    ("field", "value"), [("max_echo_similarity", 1.5), ("min_words", -1), ("benchmark_cover", 0.0)]
)
def test_an_invalid_spec_names_the_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"FilterSpec.{field}"):
        FilterSpec(**{field: value})  # pyright: ignore[reportArgumentType]
