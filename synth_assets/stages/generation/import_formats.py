"""Formats of published instruction data: the columns of a record and the role of each.

A format maps roles to their usual column names. To add one, add a row to FORMATS. The format of a record is chosen by
its non-null columns. Message trees are flattened to conversations first (message_trees.py).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.generation.message_trees import TREE_COLUMNS, TREE_OPTIONS

Gives = Literal["instructions", "preferences"]
Columns = Mapping[str, tuple[str, ...]]  # role -> possible column names; the first one present is used

ROLES = {
    "instruction": "the instruction: a text, or turns",
    "input": "input of the instruction, appended below a blank line (also: context)",
    "response": "the answer: a text, or turns",
    "system": "the system prompt, the first turn of the history",
    "history": "earlier turns: pairs of question and answer, or turns",
    "conversation": "all turns",
    "chosen": "the better answer: a text, or turns",
    "rejected": "the worse answer: a text, or turns",
    "label": "whether the answer is good (KTO): rows labelled bad are rejected",
    "weight": "weight of a row: rows of weight 0 are rejected",
    "score": "a rating: reported, not used",
}
ALIASES = {"context": "input"}

PROMPTS = ("prompt", "instruction", "question", "query")
RESPONSES = ("completion", "response", "answer", "output")
LABELS = ("label", "kto_tag")
SYSTEM = {"system": ("system", "system_prompt")}
CONTEXT_COLUMNS = {"input": ("input", "context"), **SYSTEM, "history": ("history",)}
LABEL_COLUMNS = {
    "label": LABELS,
    "weight": (),
    "score": (),
}  # roles without column names apply only if a user names the column


@dataclass(frozen=True)
class Format:
    """Output table of a format, and the required and optional columns of its records."""

    gives: Gives
    required: Columns
    optional: Columns = field(default_factory=dict)


FORMATS: dict[str, Format] = {
    "preference": Format(
        "preferences",
        {"chosen": ("chosen",), "rejected": ("rejected",)},
        {
            "instruction": PROMPTS,
            **CONTEXT_COLUMNS,
            "conversation": ("conversations", "messages"),
            "weight": (),
            "score": (),
        },
    ),
    "tree": Format("instructions", {name: (name,) for name in TREE_COLUMNS}, {name: (name,) for name in TREE_OPTIONS}),
    "sharegpt": Format(
        "instructions",
        {"conversation": ("conversations", "conversation")},
        {**SYSTEM, "input": (), "response": (), **LABEL_COLUMNS},
    ),
    "messages": Format(
        "instructions", {"conversation": ("messages",)}, {**SYSTEM, "input": (), "response": (), **LABEL_COLUMNS}
    ),
    "alpaca": Format(
        "instructions",
        {"instruction": ("instruction",), "response": ("output",)},
        {**CONTEXT_COLUMNS, "conversation": (), **LABEL_COLUMNS},
    ),
    "kto": Format(
        "instructions",
        {"instruction": PROMPTS, "response": RESPONSES, "label": LABELS},
        {**CONTEXT_COLUMNS, **LABEL_COLUMNS},
    ),
    "completion": Format(
        "instructions",
        {"instruction": PROMPTS, "response": RESPONSES},
        {**CONTEXT_COLUMNS, "conversation": (), **LABEL_COLUMNS},
    ),
}
MAX_CACHED = 1_000  # sets of columns; a file with more of them is read more slowly


@dataclass(frozen=True)
class Chosen:
    """A format with the file's column for each role."""

    name: str
    gives: Gives
    columns: Mapping[str, str]
    required: tuple[str, ...] = ()  # columns that a record must fill
    text_cells: bool = False  # a CSV: lists and objects are JSON in a cell


class FormatChooser:
    """Choose the format of each record of a file by its non-null columns."""

    def __init__(
        self,
        seen: Sequence[str],
        name: str | None = None,
        own: Mapping[str, str] | None = None,
        *,
        no_labels: Collection[str] = (),
        text_cells: bool = False,
    ) -> None:
        """Choose the main format of a file, which applies to records that match no other.

        Args:
            seen: columns of the file's first records.
            name: a key of FORMATS; any format if None.
            own: column by role, as a user named them; an empty column: nothing has that role.
            no_labels: columns with the name of a label but other values.
            text_cells: whether every cell is a text.

        Raises:
            ValueError: an unknown format or role, a missing column, or columns that match no format.
        """
        self._own = {ALIASES.get(role, role): column for role, column in (own or {}).items()}
        self._name, self._no_labels, self._text_cells = name, frozenset(no_labels), text_cells
        self._known: dict[frozenset[str], Chosen | None] = {}
        _check_names(seen, name, self._own)
        main = self._fit(frozenset(seen))
        if main is None:
            raise ValueError(_mismatch_text(seen, name, self._own))
        self.main = main

    def of(self, present: Iterable[str]) -> Chosen:
        """Return the format of a record with these non-null columns."""
        key = frozenset(present)
        if key not in self._known:
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[key] = self._fit(key)
        chosen = self._known[key]
        return chosen if chosen and chosen.name != "tree" else self.main

    def _fit(self, names: frozenset[str]) -> Chosen | None:
        """Return the first format whose required columns are among `names`."""
        for key, shape in FORMATS.items():
            if self._name not in (None, key) or not self._named() <= shape.required.keys() | shape.optional.keys():
                continue
            roles = {**shape.required, **shape.optional}
            mapped = {role: column for role, known in roles.items() if (column := self._column(role, known, names))}
            if shape.required.keys() <= mapped.keys():
                if "instruction" in mapped and "conversation" not in self._own:
                    mapped.pop("conversation", None)  # preference sets store the same turns twice
                required = tuple(mapped[role] for role in shape.required)
                return Chosen(key, shape.gives, mapped, required, self._text_cells)
        return None

    def _named(self) -> set[str]:
        return {role for role, column in self._own.items() if column}

    def _column(self, role: str, known: tuple[str, ...], names: frozenset[str]) -> str | None:
        """Return the column of a role among `names`; a column that a user assigned to a role has no other role."""
        if role in self._own:
            return self._own[role] if self._own[role] in names else None
        taken = set(self._own.values()) | (self._no_labels if role == "label" else set())
        return next((column for column in known if column in names and column not in taken), None)


def shown(names: Iterable[str]) -> str:
    """Return comma-separated column names for a terminal."""
    return ", ".join(terminal_line(name) for name in names)


def _check_names(seen: Sequence[str], name: str | None, own: Mapping[str, str]) -> None:
    if name is not None and name not in FORMATS:
        raise ValueError(f"no format {name!r}; there are {', '.join(FORMATS)}")
    if unknown := sorted(set(own) - set(ROLES)):
        raise ValueError(f"no role {shown(unknown)}; a column can be {', '.join([*ROLES, *ALIASES])}")
    if lacking := sorted({column for column in own.values() if column} - set(seen)):
        raise ValueError(f"no column {shown(lacking)}; there are {shown(seen)}")


def _mismatch_text(seen: Sequence[str], name: str | None, own: Mapping[str, str]) -> str:
    expected = f"format {name}" if name else "any known format"
    if assigned := [f"{role}={terminal_line(column)}" for role, column in own.items() if column]:
        return (
            f"columns for {', '.join(assigned)} are not enough for {expected}: expected instruction and response, "
            f"or conversation, or chosen and rejected; the columns are {shown(seen)}"
        )
    return (
        f"columns {shown(seen)} do not fit {expected} ({', '.join(FORMATS)}); "
        "name your own columns, such as --column instruction=question,response=reply"
    )
