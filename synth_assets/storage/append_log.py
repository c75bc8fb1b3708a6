"""Append-only logs of JSON objects, one a line: one writer at a time, and an entry is complete or absent."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from synth_assets.reporting.escaping import storable


def append_entry(path: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry and sync it to disk; remove the remains of an entry that a killed writer left incomplete."""
    line = storable(json.dumps(entry, sort_keys=True, ensure_ascii=False)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        complete = _complete(content)
        file.truncate(min(len(complete), len(content)))
        file.write(complete[len(content) :] + line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Return all entries, oldest first; empty if there is no log.

    Raises:
        ValueError: a line is no JSON object; names file and line.
    """
    if not path.is_file():
        return []
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(_complete(path.read_bytes()).splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise damaged(path, number, error) from error
        if not isinstance(entry, dict):
            raise damaged(path, number, "not an object")
        entries.append(entry)
    return entries


def damaged(path: Path, number: int, cause: object) -> ValueError:
    """Return the error for a line that is not an entry."""
    return ValueError(
        f"{path}, line {number} is not an entry of the log: {cause}; restore the file from a backup, "
        "or correct that line"
    )


def _complete(content: bytes) -> bytes:
    """Return the content without an incomplete last entry; an entry that lacks only its line break gets it."""
    last = content[content.rfind(b"\n") + 1 :]
    return content + b"\n" if _is_entry(last) else content[: len(content) - len(last)]


def _is_entry(line: bytes) -> bool:
    """Return whether a line is a whole entry. No beginning of an entry is one: its object is not closed."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
