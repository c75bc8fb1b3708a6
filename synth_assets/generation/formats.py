"""The shapes in which instruction data is published, and how a record of each becomes a row.

A format maps roles to the column names that are in use for them. Adding one is a row in FORMATS. A tree of messages
is flattened to conversations before its records come here (trees.py).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from synth_assets.generation.trees import TREE_COLUMNS

PLACEHOLDER_INPUT = re.compile(r"<?\s*(no ?input|none|n/?a|empty)\s*>?\.?", re.IGNORECASE)  # Alpaca's "<noinput>"
USER_ROLES = frozenset({"user", "human", "prompter"})
ASSISTANT_ROLES = frozenset({"assistant", "gpt", "chatgpt", "bot", "model"})
ROLES = ("instruction", "input", "response", "conversation", "chosen", "rejected")


@dataclass(frozen=True)
class Format:
    """What a format gives, and for each role the column names that may hold it; the first one found is taken."""

    gives: Literal["instructions", "preferences"]
    columns: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()


PROMPTS = ("prompt", "instruction", "question", "query")
FORMATS: dict[str, Format] = {
    "preference": Format(
        "preferences",
        {
            "instruction": PROMPTS,
            "conversation": ("conversations", "messages"),
            "chosen": ("chosen",),
            "rejected": ("rejected",),
        },
        frozenset({"instruction", "conversation"}),
    ),
    "tree": Format("instructions", {name: (name,) for name in TREE_COLUMNS}),
    "sharegpt": Format("instructions", {"conversation": ("conversations", "conversation")}),
    "messages": Format("instructions", {"conversation": ("messages",)}),
    "alpaca": Format(
        "instructions",
        {"instruction": ("instruction",), "input": ("input",), "response": ("output",)},
        frozenset({"input"}),
    ),
    "completion": Format(
        "instructions",
        {"instruction": PROMPTS, "response": ("completion", "response", "answer", "output")},
    ),
}


class RowFaultError(ValueError):
    """A record cannot become a row; the message is the reason as it is counted."""


@dataclass
class Turns:
    """A record in the project's terms: earlier turns, the last instruction, and what answers it."""

    history: list[dict[str, str]]
    instruction: str
    responses: list[str]  # one answer, or chosen and rejected
    repairs: list[str] = field(default_factory=list)


class Chosen(NamedTuple):
    """A format and the column of the file for each of its roles."""

    name: str
    gives: Literal["instructions", "preferences"]
    columns: dict[str, str]


def format_of(found: Iterable[str], name: str | None = None, columns: Mapping[str, str] | None = None) -> Chosen:
    """The format of a file with the columns `found`: as named, as the user's columns say, or by looking.

    Raises:
        ValueError: an unknown format or role, a column that the file lacks, or columns that fit no format.
    """
    names = list(found)
    if columns:
        return _own_format(names, name, columns)
    if name is not None and name not in FORMATS:
        raise ValueError(f"no format {name!r}; there are {', '.join(FORMATS)}")
    for key in [name] if name else FORMATS:
        mapped = {role: taken for role, known in FORMATS[key].columns.items() if (taken := _first(known, names))}
        if set(FORMATS[key].columns) - set(mapped) <= FORMATS[key].optional:
            if "instruction" in mapped:
                mapped.pop("conversation", None)  # preference sets hold the same turns twice
            return Chosen(key, FORMATS[key].gives, mapped)
    wanted = f"format {name}" if name else "any known format"
    raise ValueError(
        f"columns {', '.join(names)} do not fit {wanted} ({', '.join(FORMATS)}); "
        "name your own columns, such as instruction=question,response=reply"
    )


def turns_of(record: Mapping[str, Any], chosen: Chosen) -> Turns:
    """A record's turns, cleaned; RowFaultError with the reason where it cannot be used."""
    if lacking := [name for role, name in chosen.columns.items() if name not in record and role != "input"]:
        raise RowFaultError(f"missing_column_{lacking[0]}")
    repairs: list[str] = []
    cells = {role: record.get(column) for role, column in chosen.columns.items()}
    turns = _opening(cells, repairs)
    if chosen.gives == "preferences":
        answers = [_answer(cells[role], turns, repairs) for role in ("chosen", "rejected")]
    else:
        answers = [_clean(cells["response"], repairs)] if "response" in cells else []
    if not answers:
        if not turns or turns[-1]["role"] != "assistant":
            raise RowFaultError("no_answer")
        answers = [turns.pop()["content"]]
    if not turns or turns[-1]["role"] != "user":
        raise RowFaultError("no_instruction")
    instruction = turns.pop()["content"]
    if not instruction:
        raise RowFaultError("empty_instruction")
    if not all(answers):
        raise RowFaultError("empty_response")
    return Turns(turns, instruction, answers, list(dict.fromkeys(repairs)))


def _own_format(names: Sequence[str], name: str | None, columns: Mapping[str, str]) -> Chosen:
    if unknown := sorted(set(columns) - set(ROLES)):
        raise ValueError(f"no role {', '.join(unknown)}; a column can be {', '.join(ROLES)}")
    if lacking := sorted(set(columns.values()) - set(names)):
        raise ValueError(f"no column {', '.join(lacking)}; there are {', '.join(names)}")
    gives = "preferences" if {"chosen", "rejected"} <= columns.keys() else "instructions"
    asked = {"instruction", "conversation"} & columns.keys()
    answered = gives == "preferences" or "response" in columns or "conversation" in columns
    if not answered or not (asked or gives == "preferences"):
        raise ValueError(
            f"columns for {', '.join(columns)} are not enough: wanted are instruction and response, "
            "or conversation, or instruction, chosen and rejected"
        )
    return Chosen(name or "own columns", gives, dict(columns))


def _first(known: Sequence[str], names: Sequence[str]) -> str | None:
    return next((column for column in known if column in names), None)


def _opening(cells: Mapping[str, Any], repairs: list[str]) -> list[dict[str, str]]:
    """The turns before the answer: the conversation, and the instruction with its input."""
    turns = _conversation(cells["conversation"], repairs) if cells.get("conversation") is not None else []
    if cells.get("instruction") is not None:
        text = _clean(cells["instruction"], repairs)
        extra = _clean(cells["input"], repairs) if cells.get("input") is not None else ""
        if PLACEHOLDER_INPUT.fullmatch(extra):
            repairs.append("placeholder_input")
            extra = ""
        turns.append({"role": "user", "content": f"{text}\n\n{extra}" if extra else text})
    return turns


def _answer(cell: object, turns: list[dict[str, str]], repairs: list[str]) -> str:
    """The text of `chosen` or `rejected`: a text, a turn, or a whole conversation, whose opening fills `turns`."""
    if isinstance(cell, dict):
        cell = [cell]
    if not isinstance(cell, list):
        return _clean(cell, repairs)
    conversation = _conversation(cell, repairs)
    if not conversation or conversation[-1]["role"] != "assistant":
        raise RowFaultError("no_answer")
    opening = conversation[:-1]
    if opening and not turns:
        turns.extend(opening)
    elif opening and opening != turns:
        raise RowFaultError("prompts_differ")
    return conversation[-1]["content"]


def _conversation(cell: object, repairs: list[str]) -> list[dict[str, str]]:
    if not isinstance(cell, list):
        raise RowFaultError("not_a_conversation")
    return [_turn(entry, repairs) for entry in cell]


def _turn(entry: object, repairs: list[str]) -> dict[str, str]:
    """A turn of `role, content` or of `from, value` as role and content."""
    if not isinstance(entry, dict):
        raise RowFaultError("not_a_conversation")
    name = str(entry.get("role", entry.get("from"))).lower()
    role = "user" if name in USER_ROLES else "assistant" if name in ASSISTANT_ROLES else name
    if role not in {"user", "assistant", "system"}:
        raise RowFaultError("unknown_role")
    return {"role": role, "content": _clean(entry.get("content", entry.get("value")), repairs)}


def _clean(value: object, repairs: list[str]) -> str:
    """A text with Unix line ends and no byte order mark or outer space; RowFaultError for what is no text."""
    if not isinstance(value, str):
        raise RowFaultError("not_text")
    if "\0" in value:
        raise RowFaultError("nul_character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowFaultError("invalid_unicode") from None
    if "\ufeff" in value:
        repairs.append("byte_order_mark")
        value = value.replace("\ufeff", "")
    if "\r" in value:
        repairs.append("line_ends")
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    return value.strip()
