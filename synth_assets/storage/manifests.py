"""Folder manifests with file hashes, and content hashes of tables."""

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.storage.row_batches import row_batches

MANIFEST = "manifest.json"
HASHED_ROWS = 4_096  # rows per batch


class ManifestError(ValueError):
    """A folder does not match its manifest."""


def content_hash(table: pl.DataFrame | pl.LazyFrame) -> str:
    """Return a hash of a table's schema and cells, in order: 16 hex digits.

    Independent of file format, compression and row groups. NaN, infinities and null are distinct.
    """
    lazy = table.lazy()
    schema = lazy.collect_schema()
    digest = hashlib.sha256(json.dumps([[n, str(t)] for n, t in schema.items()]).encode())
    # JSON has no NaN and polars writes null for it, so hash floats as text
    floats = pl.selectors.float().cast(pl.String)
    for batch in row_batches(lazy.with_columns(floats), HASHED_ROWS):
        digest.update(batch.write_ndjson().encode())
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """Return a hash of the names and bytes of all files in `folder` except its manifest: 16 hex digits."""
    return hashlib.sha256(json.dumps(_hashes(folder), sort_keys=True).encode()).hexdigest()[:16]


def write_manifest(folder: Path, facts: dict[str, Any]) -> str:
    """Write the manifest of `folder` with `facts` and file hashes; return the manifest's SHA-256."""
    path = folder / MANIFEST
    path.write_text(json.dumps({"facts": facts, "files": _hashes(folder)}, sort_keys=True, indent=1), "utf-8")
    return file_sha256(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the facts of a folder's manifest after verifying every file.

    Raises:
        ManifestError: there is no manifest, or a file is missing, added or changed; names the file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ManifestError(f"{folder} has no {MANIFEST}: it is incomplete")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        facts, stored = manifest["facts"], manifest["files"]
    except (ValueError, LookupError, TypeError) as error:
        raise ManifestError(f"{path} cannot be read ({error!r}): the folder is incomplete or damaged") from error
    actual = _hashes(folder)
    for name in sorted(stored.keys() | actual.keys()):
        if stored.get(name) != actual.get(name):
            raise ManifestError(f"{folder / name} does not match {MANIFEST}: missing, added or changed")
    return facts


def _hashes(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MANIFEST)
    return {str(p.relative_to(folder)): file_sha256(p) for p in files}
