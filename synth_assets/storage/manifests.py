"""Manifests: the hash of each file of a folder, and the content hash of a table."""

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.storage.row_batches import row_batches

MANIFEST = "manifest.json"
HASHED_ROWS = 4_096  # at once


class ManifestError(ValueError):
    """A folder does not hold what its manifest says."""


def content_hash(table: pl.DataFrame | pl.LazyFrame) -> str:
    """Sixteen hex digits of a table's schema and cells, in order; one changed character changes them.

    Independent of file format, compression and row groups; NaN, infinities and null differ from each other.
    """
    lazy = table.lazy()
    schema = lazy.collect_schema()
    digest = hashlib.sha256(json.dumps([[n, str(t)] for n, t in schema.items()]).encode())
    # JSON has no NaN and polars writes it as null, so floats go in as text
    floats = pl.selectors.float().cast(pl.String)
    for batch in row_batches(lazy.with_columns(floats), HASHED_ROWS):
        digest.update(batch.write_ndjson().encode())
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """Sixteen hex digits of the names and bytes of all files under `folder`, its manifest excepted."""
    return hashlib.sha256(json.dumps(_hashes(folder), sort_keys=True).encode()).hexdigest()[:16]


def write_manifest(folder: Path, facts: dict[str, Any]) -> str:
    """Complete `folder` with a manifest of `facts` and file hashes; returns the manifest's own sha256."""
    path = folder / MANIFEST
    path.write_text(json.dumps({"facts": facts, "files": _hashes(folder)}, sort_keys=True, indent=1), "utf-8")
    return file_sha256(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The facts of a complete folder, after comparing every file.

    Raises:
        ManifestError: no manifest, or a file missing, added or changed; names the file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ManifestError(f"{folder} has no {MANIFEST}: it was never completed")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        facts, stored = manifest["facts"], manifest["files"]
    except (ValueError, LookupError, TypeError) as error:
        raise ManifestError(
            f"{path} cannot be read ({error!r}): the folder was never completed, or is damaged"
        ) from error
    found = _hashes(folder)
    for name in sorted(stored.keys() | found.keys()):
        if stored.get(name) != found.get(name):
            raise ManifestError(f"{folder / name} is not what {MANIFEST} says: missing, added or changed")
    return facts


def _hashes(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MANIFEST)
    return {str(p.relative_to(folder)): file_sha256(p) for p in files}
