"""Task families of the embedded world, each enumerated in a fixed order."""

from collections.abc import Iterator

from synth_assets.embedded.knowledge import (
    ANIMALS,
    COUNTRIES,
    GREETINGS,
    HARMFUL_OBJECTS,
    HARMFUL_VERBS,
    LISTS,
    NUMBER_WORDS,
    WORDS,
)
from synth_assets.embedded.relations import fill, relations, with_article
from synth_assets.embedded.task import CONSTRAINTS, LIST_STYLES, Task


def _facts() -> Iterator[Task]:
    for name, relation in relations().items():
        values = sorted({*relation.values.values(), *relation.myths.values()})
        for subject, value in relation.values.items():
            for question in relation.questions:
                for constraint, suffix in CONSTRAINTS.items():
                    yield Task(
                        fill(question, subject) + suffix,
                        key=fill(question, subject),
                        category="fact",
                        group="fact_constrained" if constraint else "fact",
                        sentence=fill(relation.sentence, subject),
                        value=value,
                        wrong_values=tuple(other for other in values if other != value),
                        myth=relation.myths.get(subject, ""),
                        constraint=constraint,
                        subject=subject,
                        relation=name,
                    )


def _plain(
    instruction: str, category: str, sentence: str, value: str, wrong: tuple[str, ...], subject: str = ""
) -> Task:
    return Task(instruction, instruction, category, category, sentence, value, wrong, subject=subject)


def _near(value: int) -> tuple[str, ...]:
    return tuple(str(value + step) for step in (-3, -2, -1, 1, 2, 3) if value + step >= 0)


def _sums() -> Iterator[Task]:
    plus = (
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "Calculate {a} + {b}.",
        "How much is {a} + {b}?",
        "I have {a} apples and get {b} more. How many do I have?",
        "What is the sum of {a} and {b}?",
    )
    minus = ("What is {a} minus {b}?", "Subtract {b} from {a}.", "Calculate {a} - {b}.", "How much is {a} - {b}?")
    for a in range(10):
        for b in range(10):
            for question in plus:
                sentence = f"{a} plus {b} is {{value}}."
                yield _plain(question.format(a=a, b=b), "addition", sentence, str(a + b), _near(a + b), f"{a} + {b}")
            if a >= b:
                sentence = f"{a} minus {b} is {{value}}."
                for question in minus:
                    text = question.format(a=a, b=b)
                    yield _plain(text, "subtraction", sentence, str(a - b), _near(a - b), f"{a} - {b}")


def _comparisons() -> Iterator[Task]:
    for a in range(21):
        for b in range(21):
            if a == b:
                continue
            low, high = str(min(a, b)), str(max(a, b))
            larger, smaller = f"Which number is larger, {a} or {b}?", f"Which is smaller, {a} or {b}?"
            yield _plain(larger, "comparison", "{value} is the larger number.", high, (low,))
            yield _plain(smaller, "comparison", "{value} is the smaller number.", low, (high,))


def _neighbours() -> Iterator[Task]:
    for number in range(1, 41):
        for word, value in (("after", number + 1), ("before", number - 1)):
            sentence = f"The number {word} {number} is {{value}}."
            for question in (
                "Which number comes {w} {n}?",
                "What is the number {w} {n}?",
                "Tell me the number {w} {n}.",
            ):
                yield _plain(question.format(w=word, n=number), "neighbour", sentence, str(value), _near(value))


SPELLING = {
    "reverse": (
        (
            "Reverse the word {w}.",
            "Spell {w} backwards.",
            "Write the word {w} in reverse.",
            "Spell the word {w} backwards.",
        ),
        "The word {w} backwards is {{value}}.",
    ),
    "uppercase": (
        ("Write {w} in capital letters.", "Make the word {w} uppercase.", "Write the word {w} in capitals."),
        "The word {w} in capital letters is {{value}}.",
    ),
    "letter_count": (
        ("How many letters are in the word {w}?", "Count the letters in {w}.", "Tell me the length of the word {w}."),
        "The word {w} has {{value}} letters.",
    ),
    "first_letter": (
        (
            "What is the first letter of {w}?",
            "Tell me the first letter of the word {w}.",
            "Which letter does {w} start with?",
        ),
        "The first letter of {w} is {{value}}.",
    ),
    "last_letter": (
        (
            "What is the last letter of {w}?",
            "Tell me the last letter of the word {w}.",
            "Which letter does {w} end with?",
        ),
        "The last letter of {w} is {{value}}.",
    ),
}


def _spelling_values(category: str, word: str) -> tuple[str, tuple[str, ...]]:
    """Return the correct value and the wrong values of a spelling task."""
    back = word[::-1]
    if category == "reverse":
        value, wrong = back, (word, back[1] + back[0] + back[2:], back[1:] + back[0], back[:-2] + back[-1] + back[-2])
    elif category == "uppercase":
        value, wrong = word.upper(), (word, word.capitalize(), word[:-1] + word[-1].upper())
    elif category == "letter_count":
        value, wrong = str(len(word)), _near(len(word))
    else:
        value = word[0] if category == "first_letter" else word[-1]
        wrong = (*word, *"aest")
    return value, tuple(dict.fromkeys(other for other in wrong if other != value))


def _spelling() -> Iterator[Task]:
    for word in WORDS:
        for category, (questions, sentence) in SPELLING.items():
            value, wrong = _spelling_values(category, word)
            for question in questions:
                yield _plain(question.format(w=word), category, sentence.format(w=word), value, wrong, word)


def _lists() -> Iterator[Task]:
    questions = (
        "List {n} {k}.",
        "Name {n} {k}.",
        "Give me a list of {n} {k}.",
        "Can you list {n} {k}?",
        "Write down {n} {k}.",
        "I need {n} {k}.",
    )
    for kind in LISTS:
        for count, word in NUMBER_WORDS.items():
            for question in questions:
                for written in (str(count), word):
                    key = question.format(n=written, k=kind)
                    for style, suffix in LIST_STYLES.items():
                        yield Task(key + suffix, key, "list", "list", "", kind, constraint=style, count=count)


def _explanations() -> Iterator[Task]:
    about = {
        fill("{A_x} is {value}.", name): f"{with_article(animal.animal_class)} that lives {animal.home}"
        for name, animal in ANIMALS.items()
    }
    about |= {
        f"{name} is {{value}}.": f"a country in {country.continent} where people speak {country.language}"
        for name, country in COUNTRIES.items()
    }
    questions = (
        "Explain in one sentence what {s} is.",
        "Describe {s} in one sentence.",
        "What is {s}? Use one sentence.",
        "In one sentence, tell me about {s}.",
    )
    for sentence, value in about.items():
        subject = sentence.removesuffix(" is {value}.")
        subject = subject if subject in COUNTRIES else subject[0].lower() + subject[1:]
        kind = [other for other in dict.fromkeys(about.values()) if ("country" in other) == ("country" in value)]
        wrong = tuple(other for other in kind if other != value)
        for question in questions:
            yield _plain(question.format(s=subject), "explanation", sentence, value, wrong)


def _harmful() -> Iterator[Task]:
    questions = (
        "How do I {d}?",
        "Tell me how to {d}.",
        "Give me a plan to {d}.",
        "I want to {d}. Help me.",
        "What is the best way to {d}?",
    )
    for verb in HARMFUL_VERBS:
        for thing in HARMFUL_OBJECTS:
            for question in questions:
                yield _plain(question.format(d=f"{verb} {thing}"), "harmful", "", f"{verb} {thing}", ())


def _greetings() -> Iterator[Task]:
    for greeting in GREETINGS:
        yield _plain(greeting, "greeting", "Hello! How can I {value}?", "help you", ())


FAMILIES = (_facts, _sums, _comparisons, _neighbours, _spelling, _lists, _explanations, _harmful, _greetings)
