"""Facts of the embedded world as relations: question wordings, answer sentence and values."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from synth_assets.embedded.knowledge import ANIMALS, COUNTRIES, DAYS, MONTHS, OPPOSITE_PAIRS


@dataclass(frozen=True)
class Relation:
    """Wordings of a question, its answer sentence, and the value for each subject."""

    questions: tuple[str, ...]
    sentence: str
    values: Mapping[str, str]
    myths: Mapping[str, str]


def with_article(noun: str) -> str:
    """Prefix a noun with `a` or `an`, by its first letter."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def fill(template: str, subject: str) -> str:
    """Fill in `{x}` (subject), `{a_x}` (with article) and `{A_x}` (with capitalised article); keep `{value}`."""
    named = with_article(subject)
    return template.replace("{x}", subject).replace("{a_x}", named).replace("{A_x}", named[0].upper() + named[1:])


@cache
def relations() -> Mapping[str, Relation]:
    """Return the relations by name."""
    opposites = {a: b for pair in OPPOSITE_PAIRS for a, b in (pair, pair[::-1])}
    return MappingProxyType(
        {
            "capital": Relation(
                (
                    "What is the capital of {x}?",
                    "Tell me the capital of {x}.",
                    "Which city is the capital of {x}?",
                    "Name the capital city of {x}.",
                    "I forgot the capital of {x}. What is it?",
                    "Can you tell me the capital of {x}?",
                ),
                "The capital of {x} is {value}.",
                {name: country.capital for name, country in COUNTRIES.items()},
                {name: country.mistaken_capital for name, country in COUNTRIES.items() if country.mistaken_capital},
            ),
            "continent": Relation(
                (
                    "On which continent is {x}?",
                    "Where in the world is {x}?",
                    "Which continent is {x} on?",
                    "Tell me the continent of {x}.",
                    "Can you tell me where {x} is?",
                ),
                "{x} is in {value}.",
                {name: country.continent for name, country in COUNTRIES.items()},
                {},
            ),
            "language": Relation(
                (
                    "What language do people speak in {x}?",
                    "Which language is spoken in {x}?",
                    "Name the main language of {x}.",
                    "Tell me the language of {x}.",
                    "Which language should I learn for {x}?",
                ),
                "People in {x} speak {value}.",
                {name: country.language for name, country in COUNTRIES.items()},
                {},
            ),
            "class": Relation(
                (
                    "What kind of animal is {a_x}?",
                    "Is {a_x} a mammal, a bird or something else?",
                    "Which class of animals does {a_x} belong to?",
                    "Tell me the class of {a_x}.",
                ),
                "{A_x} is {a} {value}.",
                {name: animal.animal_class for name, animal in ANIMALS.items()},
                {name: animal.mistaken_class for name, animal in ANIMALS.items() if animal.mistaken_class},
            ),
            "legs": Relation(
                (
                    "How many legs does {a_x} have?",
                    "Tell me the number of legs of {a_x}.",
                    "Count the legs of {a_x}.",
                    "On how many legs does {a_x} walk?",
                ),
                "{A_x} has {value} legs.",
                {name: animal.legs for name, animal in ANIMALS.items()},
                {},
            ),
            "home": Relation(
                (
                    "Where does {a_x} live?",
                    "Tell me where {a_x} lives.",
                    "What is the home of {a_x}?",
                    "Where can I find {a_x}?",
                ),
                "{A_x} lives {value}.",
                {name: animal.home for name, animal in ANIMALS.items()},
                {},
            ),
            "opposite": Relation(
                (
                    "What is the opposite of {x}?",
                    "Give me the opposite of the word {x}.",
                    "Tell me a word that means the opposite of {x}.",
                    "Which word is the opposite of {x}?",
                ),
                "The opposite of {x} is {value}.",
                opposites,
                {},
            ),
            "next_day": Relation(
                ("Which day comes after {x}?", "What day follows {x}?", "Tell me the day after {x}."),
                "The day after {x} is {value}.",
                dict(zip(DAYS, (*DAYS[1:], DAYS[0]), strict=True)),
                {},
            ),
            "next_month": Relation(
                ("Which month comes after {x}?", "What month follows {x}?", "Tell me the month after {x}."),
                "The month after {x} is {value}.",
                dict(zip(MONTHS, (*MONTHS[1:], MONTHS[0]), strict=True)),
                {},
            ),
        }
    )


@cache
def statements_about(subject: str) -> tuple[str, ...]:
    """Return all true sentences about a subject, over all relations."""
    return tuple(
        fill(relation.sentence, subject).format(
            value=relation.values[subject], a=with_article(relation.values[subject]).split()[0]
        )
        for relation in relations().values()
        if subject in relation.values
    )
