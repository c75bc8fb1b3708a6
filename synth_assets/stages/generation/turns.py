"""Convert a record of a format to turns: history, instruction and responses."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synth_assets.stages.generation.import_formats import Chosen

PLACEHOLDER_INPUT = re.compile(r"<?\s*(no ?input|none|n/?a|empty)\s*>?\.?", re.IGNORECASE)  # Alpaca's "<noinput>"
MARKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")  # of HH-RLHF
ROLE_NAMES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
TOOL_ROLES = frozenset(
    {"tool", "function", "observation", "function_call", "tool_call", "tool_calls", "tool_response", "ipython"}
)
TOOL_FIELDS = ("tool_calls", "function_call")
TURN_FIELDS = frozenset({"role", "from", "content", "value"})
EXCLUSIONS = {"weight": 0, "loss": False}  # field of a turn -> value that excludes it from training
TRUE = frozenset({"true", "1", "1.0", "yes", "good", "desirable"})
FALSE = frozenset({"false", "0", "0.0", "-1", "no", "bad", "undesirable"})

Turn = dict[str, str]


class RowFaultError(ValueError):
    """A record cannot become a row; the message is the reason."""


@dataclass
class Turns:
    """A record as turns: history, last instruction and responses."""

    history: list[Turn]
    instruction: str
    responses: list[str]  # one answer, or chosen and rejected
    repairs: set[str] = field(default_factory=set)
    unused_fields: set[str] = field(default_factory=set)  # of turns


def turns_of(record: Mapping[str, Any], chosen: Chosen) -> Turns:
    """Return a record's turns, cleaned; raise RowFaultError with the reason if it cannot be used."""
    if lacking := [column for column in chosen.required if record.get(column) is None]:
        raise RowFaultError(f"missing_column_{lacking[0]}")
    cells = {role: record.get(column) for role, column in chosen.columns.items()}
    _check_label(cells)
    return _Reader(chosen.text_cells).turns(cells)


def truth(value: object) -> bool | None:
    """Return whether a label says that an answer is good; None if it is no label."""
    word = str(value).strip().lower()
    return True if word in TRUE else False if word in FALSE else None


def _check_label(cells: Mapping[str, Any]) -> None:
    """Raise RowFaultError for a row that its label or weight excludes."""
    if (label := cells.get("label")) is not None:
        if (good := truth(label)) is None:
            raise RowFaultError("label_not_boolean")
        if not good:
            raise RowFaultError("labelled_bad")
    if (weight := cells.get("weight")) is not None:
        try:
            excluded = float(weight) <= 0
        except (TypeError, ValueError):
            raise RowFaultError("weight_not_a_number") from None
        if excluded:
            raise RowFaultError("weight_zero")


class _Reader:
    """Read the cells of one record, and collect repairs and unused fields."""

    def __init__(self, text_cells: bool) -> None:
        self._text_cells = text_cells
        self._repairs: set[str] = set()
        self._unused: set[str] = set()

    def turns(self, cells: Mapping[str, Any]) -> Turns:
        before = self._before(cells)
        sides = [cells[role] for role in ("chosen", "rejected", "response") if cells.get(role) is not None]
        if sides:
            turns, answers = self._answered(before, sides)
        else:
            turns, answers = before[:-1], [_answer(before)]
        turns = self._with_system(turns, cells.get("system"))
        if not turns or turns[-1]["role"] != "user":
            raise RowFaultError("no_instruction")
        instruction = self._with_input(turns.pop()["content"], cells.get("input"))
        if not instruction:
            raise RowFaultError("empty_instruction")
        if not all(answers):
            raise RowFaultError("empty_response")
        return Turns([{**turn} for turn in turns], instruction, answers, self._repairs, self._unused)

    def _before(self, cells: Mapping[str, Any]) -> list[Turn]:
        """Return the turns of conversation, history and instruction."""
        turns: list[Turn] = []
        if (cell := cells.get("conversation")) is not None:
            turns += self._conversation(cell)
        if (cell := cells.get("history")) is not None:
            turns += self._history(cell)
        if (cell := cells.get("instruction")) is not None:
            listed_turns = self._listed(cell)
            if listed_turns is None:
                listed_turns = self._marked(cell, prompt=True) or [{"role": "user", "content": self._clean(cell)}]
            turns += listed_turns
        return turns

    def _with_input(self, instruction: str, cell: object) -> str:
        """Return the instruction with its input below a blank line, unless it ends with the input already."""
        text = "" if cell is None else self._clean(cell)
        if PLACEHOLDER_INPUT.fullmatch(text):
            self._repairs.add("placeholder_input")
            return instruction
        return instruction if not text or instruction.endswith(f"\n{text}") else f"{instruction}\n\n{text}".lstrip()

    def _answered(self, before: list[Turn], sides: list[Any]) -> tuple[list[Turn], list[str]]:
        """Return the turns before the answers, and the answers, which may be conversations themselves."""
        openings, answers = [], []
        for cell in sides:
            listed_turns = self._listed(cell)
            if listed_turns is None and (not before or str(cell).startswith("\n\n")):
                listed_turns = self._marked(cell, prompt=False)
            answers.append(self._clean(cell) if listed_turns is None else _answer(listed_turns))
            if listed_turns and listed_turns[:-1]:
                openings.append(_joined(before, listed_turns[:-1]))
        if any(opening != openings[0] for opening in openings):
            raise RowFaultError("prompts_differ")
        return (openings[0] if openings else before), answers

    def _with_system(self, turns: list[Turn], cell: object) -> list[Turn]:
        """Return the turns with the system prompt of a separate column."""
        text = "" if cell is None else self._clean(cell)
        if not text:
            return list(turns)
        if turns and turns[0]["role"] == "system":
            if turns[0]["content"] != text:
                raise RowFaultError("two_system_prompts")
            return list(turns)
        return [{"role": "system", "content": text}, *turns]

    def _listed(self, cell: object) -> list[Turn] | None:
        """Return the turns of a cell with a list of turns; None if it is plain text."""
        if isinstance(cell, list | dict):
            return self._conversation(cell)
        if self._text_cells and isinstance(cell, str) and cell.lstrip().startswith("[{"):
            with contextlib.suppress(RowFaultError):
                if _are_turns(value := _json(cell)):
                    return self._conversation(value)
        return None

    def _marked(self, cell: object, *, prompt: bool) -> list[Turn] | None:
        r"""Return the turns of a text in the format of HH-RLHF, such as "\n\nHuman: Hi\n\nAssistant: Hello".

        A prompt ends with "Assistant:". None for any other text.
        """
        if not isinstance(cell, str):
            return None
        parts = MARKER.split(cell if cell.startswith("\n\n") else cell.lstrip())
        ends = len(parts) >= 5 and parts[-2] == "Assistant" and not parts[-1].strip()
        if len(parts) < 5 or parts[0].strip() or parts[1] != "Human" or (prompt and not ends):
            return None
        roles = {"Human": "user", "Assistant": "assistant"}
        texts = zip(parts[1::2], parts[2::2], strict=True)
        turns = [{"role": roles[name], "content": self._clean(text)} for name, text in texts]
        self._repairs.add("human_assistant_markers")
        return turns[:-1] if prompt else turns

    def _conversation(self, cell: object) -> list[Turn]:
        if isinstance(cell, str):
            cell = _json(cell)
        entries = _entries(cell)
        if entries is None:
            raise RowFaultError("not_a_conversation")
        return [self._turn(entry) for entry in entries]

    def _history(self, cell: object) -> list[Turn]:
        if isinstance(cell, str):
            cell = _json(cell) if cell.strip() else []
        turns: list[Turn] = []
        for entry in _entries(cell) or ([] if cell in ([], {}) else [None]):
            if isinstance(entry, dict):
                turns.append(self._turn(entry))
            elif isinstance(entry, list | tuple) and len(entry) == 2:
                texts = zip(("user", "assistant"), entry, strict=True)
                turns += [{"role": role, "content": self._clean(text)} for role, text in texts]
            else:
                raise RowFaultError("history_not_turns")
        return turns

    def _turn(self, entry: object) -> Turn:
        """Return a turn with `role, content` or `from, value` as role and content; null counts as absent."""
        if not isinstance(entry, dict):
            raise RowFaultError("not_a_conversation")
        filled = {name: value for name, value in entry.items() if value is not None}
        name = str(filled.get("role", filled.get("from"))).strip().lower()
        content = filled.get("content", filled.get("value"))
        self._unused |= filled.keys() - TURN_FIELDS
        if name in TOOL_ROLES or (content in (None, "") and any(filled.get(key) for key in TOOL_FIELDS)):
            raise RowFaultError("tool_turn")
        if name not in ROLE_NAMES:
            raise RowFaultError("unknown_role")
        if name == "developer":
            self._repairs.add("developer_role")
        if content is None:
            raise RowFaultError("missing_content")
        turn = {"role": ROLE_NAMES[name], "content": self._content(content)}
        if any(filled.get(key) == value for key, value in EXCLUSIONS.items()):
            return _ExcludedTurn(turn)
        return turn

    def _content(self, content: object) -> str:
        """Return a turn's text; a list of parts must have only texts."""
        if not isinstance(content, list):
            return self._clean(content)
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise RowFaultError("part_not_text")
        return "\n".join(self._clean(text) for text in texts)

    def _clean(self, value: object) -> str:
        """Return a text with line feeds, without byte order marks and outer space; raise RowFaultError for non-text."""
        if not isinstance(value, str):
            raise RowFaultError("not_text")
        if "\0" in value:
            raise RowFaultError("nul_character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowFaultError("invalid_unicode") from None
        if "\ufeff" in value:
            self._repairs.add("byte_order_mark")
            value = value.replace("\ufeff", "")
        if "\r" in value:
            self._repairs.add("line_ends")
            value = value.replace("\r\n", "\n").replace("\r", "\n")
        return value.strip()


class _ExcludedTurn(Turn):
    """A turn whose fields exclude it from training."""


def _answer(turns: list[Turn]) -> str:
    """Return the text of the last turn, which must be the assistant's."""
    if not turns or turns[-1]["role"] != "assistant":
        raise RowFaultError("no_answer")
    if isinstance(turns[-1], _ExcludedTurn):
        raise RowFaultError("answer_weight_zero")
    return turns[-1]["content"]


def _joined(before: list[Turn], opening: list[Turn]) -> list[Turn]:
    """Return the turns before an answer, merged from `before` and the opening of the answer's conversation."""
    system, earlier = _system_of(before)
    opening_system, later = _system_of(opening)
    if system and opening_system and system != opening_system:
        raise RowFaultError("two_system_prompts")
    if not earlier or later[: len(earlier)] == earlier or later[-len(earlier) :] == earlier:
        turns = later
    elif not later or earlier[-len(later) :] == later:
        turns = earlier
    elif later[0]["role"] == "assistant":  # the conversation continues where `before` ends
        turns = earlier + later
    else:
        raise RowFaultError("prompts_differ")
    return [*(system or opening_system), *turns]


def _system_of(turns: list[Turn]) -> tuple[list[Turn], list[Turn]]:
    first = 1 if turns and turns[0]["role"] == "system" else 0
    return turns[:first], turns[first:]


def _entries(cell: object) -> list[Any] | None:
    """Return the turns of a list, of a single turn, or of a struct of lists; None if it is none of these."""
    if isinstance(cell, list):
        return cell
    if not isinstance(cell, dict):
        return None
    filled = {name: value for name, value in cell.items() if value is not None}
    if not filled or not all(isinstance(value, list) for value in filled.values()):
        return [cell] if TURN_FIELDS & filled.keys() else None
    if len({len(value) for value in filled.values()}) > 1:
        return None
    return [dict(zip(filled, values, strict=True)) for values in zip(*filled.values(), strict=True)]


def _are_turns(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(e, dict) and e.keys() & {"role", "from"} for e in value)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowFaultError("cell_not_json") from None
