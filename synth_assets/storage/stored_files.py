"""Read records and tables of a home; an error names the file that is damaged and the way out."""

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
    "manifests": f"{BACKUP}, or delete it: rows of that version of the asset can then no longer be followed",
    "imports": "import the file again (synth import)",
}
"""By the folder of SYNTH_HOME that the file lies in."""


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
        DamagedFileError: the file is no JSON, or holds other fields.
    """
    try:
        return from_json(kind, path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged_file(path, error) from error


def read_table(path: Path) -> pl.DataFrame:
    """Read a Parquet file; DamagedFileError where it is truncated or no Parquet."""
    with naming_damaged([path]):
        return pl.read_parquet(path, glob=False)


def scan_table(path: Path) -> pl.LazyFrame:
    """Scan a Parquet file whose footer is whole; DamagedFileError where it is truncated or no Parquet."""
    scan = pl.scan_parquet(path, glob=False)
    with naming_damaged([path]):
        scan.collect_schema()
    return scan


@contextmanager
def naming_damaged(paths: Iterable[Path]) -> Iterator[None]:
    """Turn an error of polars over several Parquet files into one that names the file that cannot be read.

    Raises:
        DamagedFileError: one of `paths` is truncated or no Parquet; where each of them can be read alone, the error
            stays what it was.
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
