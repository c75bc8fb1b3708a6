"""The shapes in which instruction data is published: which columns a record has, and what each of them is.

A format maps roles to the column names that are in use for them. Adding one is a row in FORMATS. The format of a record
is chosen by the columns that it fills: null is the same as absent. A tree of messages is flattened to conversations
before its records come here (trees.py).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.generation.message_trees import TREE_COLUMNS, TREE_OPTIONS

Gives = Literal["instructions", "preferences"]
Columns = Mapping[str, tuple[str, ...]]  # role -> names that may hold it; the first one found is taken

ROLES = {
    "instruction": "what is asked: a text, or turns",
    "input": "what the instruction is about, joined to it below a blank line (also: context)",
    "response": "the answer: a text, or turns",
    "system": "the system prompt, the first turn of the history",
    "history": "earlier turns: pairs of question and answer, or turns",
    "conversation": "all turns",
    "chosen": "the better answer: a text, or turns",
    "rejected": "the worse answer: a text, or turns",
    "label": "whether the answer is good (KTO): rows that say no are rejected",
    "weight": "how much a row counts: rows of weight 0 are rejected",
    "score": "a rating: reported, not used",
}
ALIASES = {"context": "input"}

PROMPTS = ("prompt", "instruction", "question", "query")
RESPONSES = ("completion", "response", "answer", "output")
LABELS = ("label", "kto_tag")
SYSTEM = {"system": ("system", "system_prompt")}
BESIDE = {"input": ("input", "context"), **SYSTEM, "history": ("history",)}
JUDGED = {"label": LABELS, "weight": (), "score": ()}  # without names: only if a user names the column


@dataclass(frozen=True)
class Format:
    """What a format gives, and the columns that its records must and may have."""

    gives: Gives
    required: Columns
    optional: Columns = field(default_factory=dict)


FORMATS: dict[str, Format] = {
    "preference": Format(
        "preferences",
        {"chosen": ("chosen",), "rejected": ("rejected",)},
        {"instruction": PROMPTS, **BESIDE, "conversation": ("conversations", "messages"), "weight": (), "score": ()},
    ),
    "tree": Format("instructions", {name: (name,) for name in TREE_COLUMNS}, {name: (name,) for name in TREE_OPTIONS}),
    "sharegpt": Format(
        "instructions",
        {"conversation": ("conversations", "conversation")},
        {**SYSTEM, "input": (), "response": (), **JUDGED},
    ),
    "messages": Format(
        "instructions", {"conversation": ("messages",)}, {**SYSTEM, "input": (), "response": (), **JUDGED}
    ),
    "alpaca": Format(
        "instructions",
        {"instruction": ("instruction",), "response": ("output",)},
        {**BESIDE, "conversation": (), **JUDGED},
    ),
    "kto": Format(
        "instructions", {"instruction": PROMPTS, "response": RESPONSES, "label": LABELS}, {**BESIDE, **JUDGED}
    ),
    "completion": Format(
        "instructions", {"instruction": PROMPTS, "response": RESPONSES}, {**BESIDE, "conversation": (), **JUDGED}
    ),
}
CACHED = 1_000  # sets of columns; a file of more of them is read slower


@dataclass(frozen=True)
class Chosen:
    """A format, and the column of the file for each of its roles."""

    name: str
    gives: Gives
    columns: Mapping[str, str]
    required: tuple[str, ...] = ()  # columns that a record must fill
    text_cells: bool = False  # a CSV: lists and objects are JSON in a cell


class FormatChooser:
    """Chooses the format of each record of a file by the columns that it fills."""

    def __init__(
        self,
        seen: Sequence[str],
        name: str | None = None,
        own: Mapping[str, str] | None = None,
        *,
        no_labels: Collection[str] = (),
        text_cells: bool = False,
    ) -> None:
        """Choose the main format of a file, which is that of records that fit none.

        Args:
            seen: the columns of the file's first records.
            name: a key of FORMATS; any of them where None.
            own: role -> column, as a user named them; an empty column: nothing has that role.
            no_labels: columns that are called as labels are and hold something else.
            text_cells: every cell is a text.

        Raises:
            ValueError: an unknown format or role, a column that the file lacks, or columns that fit no format.
        """
        self._own = {ALIASES.get(role, role): column for role, column in (own or {}).items()}
        self._name, self._no_labels, self._text_cells = name, frozenset(no_labels), text_cells
        self._known: dict[frozenset[str], Chosen | None] = {}
        _refuse_unknown(seen, name, self._own)
        main = self._fit(frozenset(seen))
        if main is None:
            raise ValueError(_misfit(seen, name, self._own))
        self.main = main

    def of(self, present: Iterable[str]) -> Chosen:
        """Return the format of a record that fills these columns."""
        key = frozenset(present)
        if key not in self._known:
            if len(self._known) >= CACHED:
                self._known.clear()
            self._known[key] = self._fit(key)
        known = self._known[key]
        return known if known and known.name != "tree" else self.main

    def _fit(self, names: frozenset[str]) -> Chosen | None:
        """Return the first format whose required columns are among `names`."""
        for key, shape in FORMATS.items():
            if self._name not in (None, key) or not self._named() <= shape.required.keys() | shape.optional.keys():
                continue
            roles = {**shape.required, **shape.optional}
            mapped = {role: column for role, known in roles.items() if (column := self._column(role, known, names))}
            if shape.required.keys() <= mapped.keys():
                if "instruction" in mapped and "conversation" not in self._own:
                    mapped.pop("conversation", None)  # preference sets hold the same turns twice
                required = tuple(mapped[role] for role in shape.required)
                return Chosen(key, shape.gives, mapped, required, self._text_cells)
        return None

    def _named(self) -> set[str]:
        return {role for role, column in self._own.items() if column}

    def _column(self, role: str, known: tuple[str, ...], names: frozenset[str]) -> str | None:
        """Return the column of a role among `names`; a column that a user gave a role has no other."""
        if role in self._own:
            return self._own[role] if self._own[role] in names else None
        taken = set(self._own.values()) | (self._no_labels if role == "label" else set())
        return next((column for column in known if column in names and column not in taken), None)


def shown(names: Iterable[str]) -> str:
    """Return column names for a terminal, with commas between."""
    return ", ".join(terminal_line(name) for name in names)


def _refuse_unknown(seen: Sequence[str], name: str | None, own: Mapping[str, str]) -> None:
    if name is not None and name not in FORMATS:
        raise ValueError(f"no format {name!r}; there are {', '.join(FORMATS)}")
    if unknown := sorted(set(own) - set(ROLES)):
        raise ValueError(f"no role {shown(unknown)}; a column can be {', '.join([*ROLES, *ALIASES])}")
    if lacking := sorted({column for column in own.values() if column} - set(seen)):
        raise ValueError(f"no column {shown(lacking)}; there are {shown(seen)}")


def _misfit(seen: Sequence[str], name: str | None, own: Mapping[str, str]) -> str:
    expected = f"format {name}" if name else "any known format"
    if given := [f"{role}={terminal_line(column)}" for role, column in own.items() if column]:
        return (
            f"columns for {', '.join(given)} are not enough for {expected}: expected instruction and response, "
            f"or conversation, or chosen and rejected; the columns are {shown(seen)}"
        )
    return (
        f"columns {shown(seen)} do not fit {expected} ({', '.join(FORMATS)}); "
        "name your own columns, such as --column instruction=question,response=reply"
    )
