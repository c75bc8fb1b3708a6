"""Append-only logs of JSON objects, one a line: one writer at a time, and an entry is complete or absent."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from synth_assets.reporting.escaping import storable


def append_entry(path: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry and sync it to disk; remove the remains of a writer that was killed first."""
    line = storable(json.dumps(entry, sort_keys=True, ensure_ascii=False)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(len(_complete(content)))
        file.write(line + b"\n")
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
    """Return the content up to its last line break: what follows was never completely written."""
    return content[: content.rfind(b"\n") + 1]
