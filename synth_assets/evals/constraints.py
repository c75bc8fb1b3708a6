"""Verifiable constraints on the form of an answer: an instruction for the prompt and a program that checks it."""

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
    """A verifiable property of a text.

    Attributes:
        instruction: sentence of the prompt, with `{value}`.
        holds: predicate on the stripped text and the value.
        value_type: type of the value, a key of VALUES.
    """

    instruction: str
    holds: Callable[[str, Any], bool]
    value_type: str = "count"


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
"""Types of constraint values: a description and a predicate for each."""


def words(text: str) -> list[str]:
    """Return the words in lower case; an inner hyphen or apostrophe belongs to the word."""
    return [word.casefold() for word in WORD.findall(unicodedata.normalize("NFKC", text))]


def sentences(text: str) -> int:
    """Return the number of sentences. A sentence ends in . ! ? before a space or the end; a last one may lack it.

    Abbreviations such as "Dr. Ada" count as ends, so prompts avoid them.
    """
    ends = list(SENTENCE_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(rest.strip())


def lines(text: str) -> list[str]:
    """Return the lines that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> int:
    """Return the number of paragraphs: runs of lines separated by blank lines."""
    return len([part for part in re.split(r"\n\s*\n", text) if part.strip()])


def mentions(text: str, phrase: str) -> bool:
    """Return whether the words of the phrase occur consecutively in the text, ignoring case."""
    target, tokens = words(phrase), words(text)
    return any(tokens[start : start + len(target)] == target for start in range(len(tokens) - len(target) + 1))


def json_of(text: str) -> object:
    """Parse a text that is JSON, with or without a code fence; return None if it is not valid."""
    fenced = FENCE.match(text.strip())
    try:
        return json.loads(fenced[1] if fenced else text)
    except json.JSONDecodeError:
        return None


def numbers_of_list(text: str) -> list[int]:
    """Return the item numbers of a numbered list, in order."""
    return [int(match[1]) for line in lines(text) if (match := NUMBERED.match(line))]


def _numbered(text: str, n: int) -> bool:
    return numbers_of_list(text) == list(range(1, n + 1))


def _bullets(text: str) -> int:
    return sum(bool(BULLETED.match(line)) for line in lines(text))


def _items(text: str, n: int) -> bool:
    return _bullets(text) + len(numbers_of_list(text)) == n


def _has_keys(text: str, keys: Sequence[str]) -> bool:
    document = json_of(text)
    return (
        isinstance(document, dict)
        and sorted(document) == sorted(keys)
        and all(str(v).strip() for v in document.values())
    )


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
"""Constraint types. The value replaces `{value}` in the instruction; types without a value take null."""


def instruction(kind: str, value: object) -> str:
    """Return the instruction of a constraint. Raise ValueError for an unknown type."""
    text = ", ".join(f'"{key}"' for key in value) if isinstance(value, list | tuple) else value
    return _find(kind).instruction.format(value=text)


def constraint_error(kind: object, value: object) -> str:
    """Return the error of an invalid constraint, expected against got; an empty string for a valid one."""
    if not isinstance(kind, str) or kind not in CONSTRAINTS:
        return f"expected a constraint type ({', '.join(CONSTRAINTS)}), got {kind!r}"
    expected, accepts = VALUES[CONSTRAINTS[kind].value_type]
    return "" if accepts(value) else f"expected {expected} as the value of {kind}, got {value!r}"


def holds(text: str, kind: str, value: object) -> bool:
    """Return whether a non-blank text satisfies a constraint. Raise ValueError for an unknown type."""
    stripped = text.strip()
    return bool(stripped) and _find(kind).holds(stripped, value)


def _find(kind: str) -> Constraint:
    if kind not in CONSTRAINTS:
        raise ValueError(f"unknown constraint {kind!r}; expected one of {', '.join(CONSTRAINTS)}")
    return CONSTRAINTS[kind]
