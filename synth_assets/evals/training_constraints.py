"""Constraints for training prompts, each verified by a program, of types that no test item has.

Types are disjoint from `constraints.CONSTRAINTS`, so that a gain on the suite instruction_following is one on unseen
constraints (Pyatkin et al. 2025, IFBench, arXiv 2507.02833). Values come from short lists: each sentence is known, and
is found again at the end of an instruction without a column of its own.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from synth_assets.evals.constraints import words
from synth_assets.schemas.serialization import fingerprint

SECOND_RATE = 0.2  # of constrained instructions, those with two constraints
SENTENCE = re.compile(r"[^.!?]+")
NUMBER = re.compile(r"\d+")
HYPHENATED = re.compile(r"[^\W\d_]-[^\W\d_]")
TITLE = re.compile(r"<<[^<>\n]+>>")
EXAMPLE = re.compile(r"\bfor example,? +\S", re.I)
POSTSCRIPT = re.compile(r"^\W*P\.S\.:? *\S+ +\S", re.M)  # at least two words
APOSTROPHE = re.compile(r"['\u2019]")


@dataclass(frozen=True)
class TrainingConstraint:
    """A row of TRAINING_CONSTRAINTS.

    Attributes:
        asked: the sentence that asks for it, with `{value}`.
        holds: of a stripped text and the value.
        aspect: what of a text it is about; an instruction gets one constraint of an aspect.
        values: that are drawn.
    """

    asked: str
    holds: Callable[[str, Any], bool]
    aspect: str
    values: tuple[Any, ...] = (None,)


class Asked(NamedTuple):
    """A constraint with its value."""

    kind: str
    value: Any

    @property
    def sentence(self) -> str:
        """Return the sentence that asks for it."""
        return TRAINING_CONSTRAINTS[self.kind].asked.format(value=self.value)

    def holds(self, text: str) -> bool:
        """Return whether a text that says anything has the property."""
        stripped = text.strip()
        return bool(stripped) and TRAINING_CONSTRAINTS[self.kind].holds(stripped, self.value)


def _longest_sentence(text: str) -> int:
    return max((len(words(part)) for part in SENTENCE.findall(text)), default=0)


TRAINING_CONSTRAINTS: Mapping[str, TrainingConstraint] = {
    "no_digits": TrainingConstraint("Write without any digits.", lambda text, _: not NUMBER.search(text), "numbers"),
    "numbers_at_least": TrainingConstraint(
        "Mention at least {value} numbers in digits.",
        lambda text, n: len(NUMBER.findall(text)) >= n,
        "numbers",
        (2, 3),
    ),
    "characters_below": TrainingConstraint(
        "Stay below {value} characters.", lambda text, n: len(text) < n, "length", (150, 250)
    ),
    "short_sentences": TrainingConstraint(
        "Let no sentence have more than {value} words.",
        lambda text, n: _longest_sentence(text) <= n,
        "length",
        (12, 18),
    ),
    "no_apostrophe": TrainingConstraint(
        "Write without apostrophes.", lambda text, _: not APOSTROPHE.search(text), "marks"
    ),
    "hyphen": TrainingConstraint(
        "Use at least one word with a hyphen.", lambda text, _: bool(HYPHENATED.search(text)), "marks"
    ),
    "colon": TrainingConstraint("Put in at least one colon.", lambda text, _: ":" in text, "marks"),
    "no_question": TrainingConstraint("Ask nothing in return.", lambda text, _: "?" not in text, "end"),
    "ends_with_question": TrainingConstraint(
        "Close with a question to the reader.", lambda text, _: text.endswith("?"), "end"
    ),
    "no_letter": TrainingConstraint(
        'Avoid the letter "{value}".',
        lambda text, letter: letter not in text.casefold(),
        "letters",
        ("j", "v", "x"),
    ),
    "title": TrainingConstraint(
        "Give the answer a title in double angle brackets, like <<Title>>.",
        lambda text, _: bool(TITLE.search(text)),
        "parts",
    ),
    "example": TrainingConstraint(
        'Give an example that begins with "For example".', lambda text, _: bool(EXAMPLE.search(text)), "parts"
    ),
    "postscript": TrainingConstraint(
        'Add a postscript that begins with "P.S."', lambda text, _: bool(POSTSCRIPT.search(text)), "end"
    ),
}
"""The types there are: SmolLM2-135M's answers hold each of them now and then, so that answers can be compared."""


def constraints_revision() -> str:
    """Return a hash of the types, their sentences and values."""
    return fingerprint({kind: [row.asked, row.aspect, list(row.values)] for kind, row in TRAINING_CONSTRAINTS.items()})


@functools.cache
def _by_sentence() -> Mapping[str, Asked]:
    all_asked = (Asked(kind, value) for kind, row in TRAINING_CONSTRAINTS.items() for value in row.values)
    return {asked.sentence: asked for asked in all_asked}


def draw_constraints(seed: int) -> list[Asked]:
    """Return the one or two constraints that a seed draws, of different aspects."""
    random = Random(seed)  # noqa: S311 - a draw, no secret
    kinds = sorted(TRAINING_CONSTRAINTS)
    drawn = [random.choice(kinds)]
    if random.random() < SECOND_RATE:
        taken = TRAINING_CONSTRAINTS[drawn[0]].aspect
        drawn.append(random.choice([kind for kind in kinds if TRAINING_CONSTRAINTS[kind].aspect != taken]))
    return [Asked(kind, random.choice(TRAINING_CONSTRAINTS[kind].values)) for kind in drawn]


def with_constraints(instruction: str, constraints: list[Asked]) -> str:
    """Return an instruction followed by the sentences of its constraints; after a blank line where it has several."""
    asked = " ".join(constraint.sentence for constraint in constraints)
    if not asked:
        return instruction
    if "\n" in instruction:
        return f"{instruction}\n\n{asked}"
    stop = "." if instruction[-1:].isalnum() else ""
    return f"{instruction}{stop} {asked}"


def split_constraints(instruction: str) -> tuple[str, list[Asked]]:
    """Return an instruction without the constraints at its end, and these in order, as `with_constraints` put them."""
    text, found = instruction.rstrip(), []
    while (match := next(_endings(text), None)) is not None:
        text, asked = match
        found.insert(0, asked)
    return text, found


def ends_with_constraint(instruction: str) -> bool:
    """Return whether there is a constraint at the end, by one look at a tuple of all sentences."""
    return instruction.rstrip().endswith(tuple(_by_sentence()))


def _endings(text: str) -> Iterator[tuple[str, Asked]]:
    for sentence, asked in _by_sentence().items():
        if text.endswith(sentence):
            yield text.removesuffix(sentence).rstrip(), asked
