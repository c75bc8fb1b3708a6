"""Rows that people took back: a log of who recalled which row or let it in again, when and why."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from synth_assets.reporting.escaping import storable
from synth_assets.schemas.tables import RECALLS
from synth_assets.storage.atomic import write_atomically

SHOWN_ROWS = 5  # in the tag of a version
RECALLED = "recalled"  # the reason that a recalled row is rejected with


@dataclass(frozen=True)
class Recall:
    """One entry of the log; the last one of a row is in force."""

    row_id: str
    action: Literal["recalled", "let in"]
    reason: str
    by: str
    at: str  # ISO 8601, UTC


def recall_log(path: Path) -> list[Recall]:
    """All entries, oldest first; none where nothing was ever recalled.

    Raises:
        ValueError: a line is not an entry; names file and line.
    """
    if not path.is_file():
        return []
    entries: list[Recall] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            fields: dict[str, Any] = {name: storable(text) for name, text in json.loads(line).items()}
            entries.append(Recall(**fields))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number} is not an entry of the recall log: {error}; restore the file from a backup, or "
                "correct that line"
            ) from error
    return entries


def add_recalls(path: Path, entries: Iterable[Recall]) -> None:
    """Append entries; the file is replaced as a whole, so that a killed writer leaves the old one."""
    lines = [json.dumps(asdict(entry), sort_keys=True) for entry in [*recall_log(path), *entries]]
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(path, lambda temporary: _write(temporary, text))


def recalls_in_force(path: Path) -> pl.DataFrame:
    """RECALLS: the rows that are out now, by row id."""
    last = {entry.row_id: entry for entry in recall_log(path)}
    rows = [asdict(entry) for entry in last.values() if entry.action == "recalled"]
    return pl.DataFrame(rows, schema={**RECALLS, "action": pl.String}).select(RECALLS.names()).sort("row_id")


def recall_reasons(recalls: pl.DataFrame) -> dict[str, str]:
    """Row id -> why it is out, of RECALLS."""
    return {row_id: recall_text(reason, by, at) for row_id, reason, by, at in recalls.iter_rows()}


def recall_text(reason: str, by: str, at: str) -> str:
    """Why a row is out, as its rejection and the tag of a version say it."""
    return f"recalled by {by} on {at[:10]}: {reason}"


def taint_text(recalls: pl.DataFrame) -> str:
    """RECALLS that a version was trained on, in a line: what its tag says. Empty where there are none."""
    if recalls.is_empty():
        return ""
    shown = [f"{row_id} ({why})" for row_id, why in recall_reasons(recalls.head(SHOWN_ROWS)).items()]
    more = f"; {recalls.height - SHOWN_ROWS} more" if recalls.height > SHOWN_ROWS else ""
    return f"{recalls.height} recalled {'row' if recalls.height == 1 else 'rows'}: {'; '.join(shown)}{more}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
