"""Read records and tables of a home; errors name the damaged file and the remedy."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import polars as pl

from synth_assets.schemas.serialization import from_json

R = TypeVar("R")

BACKUP = "restore it from a backup"
REMEDIES = {
    "tables": f"materialise the asset again (synth run), or {BACKUP}",
    "shards": "delete it: the next run that needs the block computes it again",
    "manifests": f"{BACKUP}, or delete it: rows of that version of the asset can then no longer be traced",
    "imports": "import the file again (synth import)",
}
"""Remedy by folder of SYNTH_HOME."""


class DamagedFileError(ValueError):
    """A file of the home cannot be read; the message names it, the cause and the remedy."""


def damaged_file(path: Path, cause: object) -> DamagedFileError:
    """Return the error for a file that cannot be read."""
    remedy = next((REMEDIES[part] for part in reversed(path.parts[:-1]) if part in REMEDIES), BACKUP)
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0].removesuffix(":")
    return DamagedFileError(f"{path} is damaged ({reason}): {remedy}")


def read_record(kind: type[R], path: Path) -> R:
    """Read a record of type `kind`.

    Raises:
        DamagedFileError: the file is not JSON, or has other fields.
    """
    try:
        return from_json(kind, path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged_file(path, error) from error


def read_table(path: Path) -> pl.DataFrame:
    """Read a Parquet file. Raise DamagedFileError if it is truncated or not Parquet."""
    with naming_damaged([path]):
        return pl.read_parquet(path, glob=False)


def scan_table(path: Path) -> pl.LazyFrame:
    """Scan a Parquet file. Raise DamagedFileError if its footer is truncated or it is not Parquet."""
    scan = pl.scan_parquet(path, glob=False)
    with naming_damaged([path]):
        scan.collect_schema()
    return scan


@contextmanager
def naming_damaged(paths: Iterable[Path]) -> Iterator[None]:
    """Replace a polars error about several Parquet files by one that names the unreadable file.

    Raises:
        DamagedFileError: one of `paths` is truncated or not Parquet. If each can be read alone, the original error is
            raised.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        for path, cause in _unreadable(list(paths)):
            raise damaged_file(path, cause) from error
        raise


def _unreadable(paths: Sequence[Path]) -> Iterator[tuple[Path, Exception]]:
    for path in paths:
        if not path.is_file():
            continue
        try:
            pl.read_parquet(path, glob=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            yield path, error
