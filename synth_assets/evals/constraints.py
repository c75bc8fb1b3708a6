"""What an answer can be asked to be, beside right: each constraint said in words, and verified by a program."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)")
NUMBERED = re.compile(r"\s*(\d+)[.)]\s+\S")
BULLETED = re.compile(r"\s*[-*\u2022]\s+\S")
FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n```\Z", re.S)


@dataclass(frozen=True)
class Constraint:
    """A property of a text.

    Attributes:
        asked: the sentence that asks for it, with `{value}`.
        holds: of a stripped text and the value.
        takes: what the value must be, a key of VALUES.
    """

    asked: str
    holds: Callable[[str, Any], bool]
    takes: str = "count"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_phrase(value: object) -> bool:
    return isinstance(value, str) and bool(words(value))


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(words(value)) == 1


def _is_keys(value: object) -> bool:
    return (
        isinstance(value, list | tuple) and 0 < len(value) == len(set(map(str, value))) and all(map(_is_phrase, value))
    )


VALUES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "count": ("a whole number of at least 1", _is_count),
    "phrase": ("text with at least one word", _is_phrase),
    "word": ("one word", _is_word),
    "keys": ("a list of different names", _is_keys),
    "nothing": ("null", lambda value: value is None),
}
"""What the value of a constraint may be: the words for it, and whether a value is that."""


def words(text: str) -> list[str]:
    """The words, in lower case; a hyphen or apostrophe inside belongs to its word."""
    return [word.casefold() for word in WORD.findall(unicodedata.normalize("NFKC", text))]


def sentences(text: str) -> int:
    """How many sentences: ends in . ! ? before a space or the end; what follows the last counts too.

    Abbreviations such as "Dr. Ada" count as ends: prompts avoid them.
    """
    ends = list(SENTENCE_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(rest.strip())


def lines(text: str) -> list[str]:
    """The lines that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> int:
    """How many runs of lines that blank lines part."""
    return len([part for part in re.split(r"\n\s*\n", text) if part.strip()])


def mentions(text: str, phrase: str) -> bool:
    """Whether the words of the phrase occur together, in whatever case."""
    wanted, found = words(phrase), words(text)
    return any(found[place : place + len(wanted)] == wanted for place in range(len(found) - len(wanted) + 1))


def json_of(text: str) -> object:
    """The JSON that the text is, alone or in one code fence; None where it is none."""
    fenced = FENCE.match(text.strip())
    try:
        return json.loads(fenced[1] if fenced else text)
    except json.JSONDecodeError:
        return None


def numbers_of_list(text: str) -> list[int]:
    """The numbers of a numbered list's items, in order."""
    return [int(found[1]) for line in lines(text) if (found := NUMBERED.match(line))]


def _numbered(text: str, n: int) -> bool:
    return numbers_of_list(text) == list(range(1, n + 1))


def _bullets(text: str) -> int:
    return sum(bool(BULLETED.match(line)) for line in lines(text))


def _items(text: str, n: int) -> bool:
    return _bullets(text) + len(numbers_of_list(text)) == n


def _has_keys(text: str, keys: Sequence[str]) -> bool:
    found = json_of(text)
    return isinstance(found, dict) and sorted(found) == sorted(keys) and all(str(v).strip() for v in found.values())


def _cased(text: str, change: Callable[[str], str]) -> bool:
    return text == change(text) and any(letter.isalpha() for letter in text)


CONSTRAINTS: Mapping[str, Constraint] = {
    "lines": Constraint("Write exactly {value} lines.", lambda text, n: len(lines(text)) == n),
    "paragraphs": Constraint(
        "Write exactly {value} paragraphs with a blank line between them.", lambda text, n: paragraphs(text) == n
    ),
    "sentences": Constraint("Write exactly {value} sentences.", lambda text, n: sentences(text) == n),
    "one_sentence": Constraint("Answer in a single sentence.", lambda text, _: sentences(text) == 1, "nothing"),
    "items": Constraint("Answer with a list of exactly {value} items.", _items),
    "numbered_list": Constraint('Answer with a numbered list of exactly {value} items ("1." and so on).', _numbered),
    "bulleted_list": Constraint(
        'Answer with exactly {value} bullet points, each beginning with "-".', lambda text, n: _bullets(text) == n
    ),
    "json_keys": Constraint(
        "Answer with nothing but a JSON object that has exactly the keys {value}.", _has_keys, "keys"
    ),
    "words_at_most": Constraint("Use at most {value} words.", lambda text, n: len(words(text)) <= n),
    "words_at_least": Constraint("Use at least {value} words.", lambda text, n: len(words(text)) >= n),
    "keyword": Constraint('Use the word "{value}".', mentions, "phrase"),
    "no_keyword": Constraint('Do not use the word "{value}".', lambda text, word: not mentions(text, word), "phrase"),
    "first_word": Constraint(
        'Begin with the word "{value}".', lambda text, word: words(text)[:1] == [str(word).casefold()], "word"
    ),
    "last_word": Constraint(
        'End with the word "{value}".', lambda text, word: words(text)[-1:] == [str(word).casefold()], "word"
    ),
    "uppercase": Constraint("Write everything in capital letters.", lambda text, _: _cased(text, str.upper), "nothing"),
    "lowercase": Constraint(
        "Write everything in small letters, without any capital.", lambda text, _: _cased(text, str.lower), "nothing"
    ),
    "no_commas": Constraint("Do not use any commas.", lambda text, _: "," not in text, "nothing"),
}
"""The types there are; a value is what `{value}` stands for, or null."""


def asks(kind: str, value: object) -> str:
    """The sentence that asks for a constraint; ValueError names a type that does not exist."""
    shown = ", ".join(f'"{key}"' for key in value) if isinstance(value, list | tuple) else value
    return _find(kind).asked.format(value=shown)


def unfit(kind: object, value: object) -> str:
    """Return what is wrong with a constraint, expected against got; nothing where it is sound."""
    if not isinstance(kind, str) or kind not in CONSTRAINTS:
        return f"expected a type that exists ({', '.join(CONSTRAINTS)}), got {kind!r}"
    expected, accepts = VALUES[CONSTRAINTS[kind].takes]
    return "" if accepts(value) else f"expected {expected} as the value of {kind}, got {value!r}"


def holds(text: str, kind: str, value: object) -> bool:
    """Whether a text that says anything has the property; ValueError names a type that does not exist."""
    stripped = text.strip()
    return bool(stripped) and _find(kind).holds(stripped, value)


def _find(kind: str) -> Constraint:
    if kind not in CONSTRAINTS:
        raise ValueError(f"no constraint {kind!r}; there are {', '.join(CONSTRAINTS)}")
    return CONSTRAINTS[kind]
