"""Votes of the playground: a log of preference pairs, imported as the source `playground`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.generation.import_report import ImportReport
from synth_assets.stages.generation.import_store import ImportRequest, StoredImport, import_file, line_of
from synth_assets.stages.generation.imports import ImportOptions, chunks_of
from synth_assets.storage.append_log import append_entry, read_entries

SOURCE = "playground"  # name of the import and source of its rows
LOG = "playground.jsonl"  # in SYNTH_HOME
OPTIONS = ImportOptions("preference")


@dataclass(frozen=True)
class Vote:
    """A preference pair with its lineage; the first four fields are the columns that the import reads.

    Attributes:
        history: earlier turns, the system prompt first if there is one.
        prompt: the last user turn.
        chosen: the better answer.
        rejected: the worse answer.
        chosen_model: title of the model that wrote it, with its version, such as "lora_adapter version 2".
        rejected_model: the same for the worse answer.
        chosen_revision: fingerprint of the adapter, or revision of the base model.
        rejected_revision: the same for the worse answer.
        temperature: of both answers.
        max_new_tokens: the same.
        seed: the same.
        by: who voted.
        at: time, ISO 8601, UTC.
    """

    history: tuple[dict[str, str], ...]
    prompt: str
    chosen: str
    rejected: str
    chosen_model: str
    rejected_model: str
    chosen_revision: str
    rejected_revision: str
    temperature: float
    max_new_tokens: int
    seed: int
    by: str
    at: str


def add_votes(home: Path, votes: Sequence[Vote]) -> list[str]:
    """Store votes and import the log again; return the row ids of their pairs.

    Raises:
        RecordFileError: there is another import of the name SOURCE, or a pair cannot be read.
    """
    log = home / LOG
    with FileLock(home / f".{SOURCE}.lock"):
        for vote in votes:
            append_entry(log, asdict(vote))
        import_file(ImportRequest(log, OPTIONS, SOURCE, replace=True), home / "imports")
        rows = [each.row for chunk in chunks_of(log, OPTIONS, ImportReport(SOURCE)) for each in chunk]
    return [row["row_id"] for row in rows[-len(votes) :]]


def vote_line(stored: StoredImport, row_id: str) -> str:
    """Return a line about the vote that a row of the import came from; empty if there is none."""
    line = line_of(stored, row_id)
    entries: list[dict[str, Any]] = read_entries(stored.path) if line else []
    if not line or len(entries) < line or "chosen_model" not in entries[line - 1]:
        return ""
    vote = entries[line - 1]
    return terminal_line(
        f"{vote['chosen_model']} ({vote['chosen_revision']}) preferred to {vote['rejected_model']} "
        f"({vote['rejected_revision']}) by {vote['by']} on {vote['at'][:10]}; temperature {vote['temperature']:g}, "
        f"at most {vote['max_new_tokens']} tokens, seed {vote['seed']}",
        1_000,
    )
