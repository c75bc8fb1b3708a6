"""Retractions: a log of who recalled or restored which row, when and why."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from synth_assets.reporting.escaping import storable
from synth_assets.schemas.tables import RECALLS
from synth_assets.storage.atomic import write_text

MAX_SHOWN_ROWS = 5  # in the tag of a version
RECALLED = "recalled"  # rejection reason of a recalled row
EMPTY_RECALLS = pl.DataFrame(schema=RECALLS)


@dataclass(frozen=True)
class Recall:
    """An entry of the log; the last entry of a row counts."""

    row_id: str
    action: Literal["recalled", "let in"]
    reason: str
    by: str
    at: str  # ISO 8601, UTC


def recall_log(path: Path) -> list[Recall]:
    """Return all entries, oldest first; empty if there is no log.

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
    """Append entries, replacing the file atomically."""
    lines = [json.dumps(asdict(entry), sort_keys=True) for entry in [*recall_log(path), *entries]]
    text = "".join(f"{line}\n" for line in lines)
    write_text(path, text)


def recalls_in_force(path: Path) -> pl.DataFrame:
    """Return RECALLS: the currently recalled rows, by row id."""
    last = {entry.row_id: entry for entry in recall_log(path)}
    rows = [asdict(entry) for entry in last.values() if entry.action == "recalled"]
    return pl.DataFrame(rows, schema={**RECALLS, "action": pl.String}).select(RECALLS.names()).sort("row_id")


def recall_reasons(recalls: pl.DataFrame) -> dict[str, str]:
    """Return row id -> reason of RECALLS."""
    return {row_id: recall_text(reason, by, at) for row_id, reason, by, at in recalls.iter_rows()}


def recall_text(reason: str, by: str, at: str) -> str:
    """Return the reason of a recall, as in the rejection of the row and the tag of a version."""
    return f"recalled by {by} on {at[:10]}: {reason}"


def taint_text(recalls: pl.DataFrame) -> str:
    """Return a line about the recalled rows that a version was trained on, for its tag; empty if none."""
    if recalls.is_empty():
        return ""
    shown = [f"{row_id} ({reason})" for row_id, reason in recall_reasons(recalls.head(MAX_SHOWN_ROWS)).items()]
    more = f"; {recalls.height - MAX_SHOWN_ROWS} more" if recalls.height > MAX_SHOWN_ROWS else ""
    return f"{recalls.height} recalled {'row' if recalls.height == 1 else 'rows'}: {'; '.join(shown)}{more}"
