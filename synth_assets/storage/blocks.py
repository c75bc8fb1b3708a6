"""Checkpointed blocks of rows: compute each block once and cache it on disk.

The file of a block is `<key>-<digest>.parquet`: `key` is the fingerprint of everything that determines the block and
`digest` the hash of the file's bytes. Files are written atomically, so a file under its final name is complete. A file
whose bytes no longer match the digest is computed again.
"""

import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from synth_assets.storage.atomic import sweep_temporaries, write_bytes
from synth_assets.storage.budgets import WorkBudget

BLOCK_ROWS = 64
REPORT_EVERY_S = 5.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Block:
    """A unit of work: its cache key, its number of rows, and the input to compute it from."""

    key: str
    rows: int
    payload: Any


def in_blocks(rows: Sequence[Any], size: int = BLOCK_ROWS) -> Iterator[Sequence[Any]]:
    """Yield consecutive slices of `size` rows; the last one may be shorter."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def compute_blocks(
    blocks: Iterable[Block],
    compute: Callable[[Any], pl.DataFrame],
    folder: Path,
    *,
    what: str,
    progress: Progress,
    budget: WorkBudget | None = None,
) -> list[Path]:
    """Return the files of all blocks in order, computing those that are missing or damaged.

    Args:
        blocks: the work; equal keys mean equal results.
        compute: computes the table of a block from its payload.
        folder: the cache folder; it may be shared by work with different keys.
        what: plural noun for the progress line, such as "rows".
        progress: receives a line with rate and ETA every few seconds.
        budget: checked before each missing block.

    Raises:
        BudgetError: the next block would exceed the budget; finished blocks are kept.
    """
    blocks = list(blocks)
    sweep_temporaries(folder)
    stored = _stored_shards(folder)
    paths = {block.key: _first_intact(stored.get(block.key, [])) for block in blocks}
    missing = [block for block in blocks if paths[block.key] is None]
    total = sum(block.rows for block in blocks)
    pending = sum(block.rows for block in missing)
    if pending < total:
        progress(f"{what}: {total - pending} of {total} found in the cache")
    if len(missing) > 1:
        progress(f"{what}: 0 of {pending}")
    meter = _Meter(what, pending, progress)
    for block in missing:
        if budget:
            budget.check(
                f"{total - pending + meter.done:,} of {total:,} {what} are done",
                meter.seconds_for(block.rows),
            )
        paths[block.key] = _write_shard(folder, block.key, compute(block.payload))
        meter.add(block.rows)
    return [path for block in blocks if (path := paths[block.key]) is not None]


def read_blocks(paths: Sequence[Path], schema: pl.Schema) -> pl.DataFrame:
    """Concatenate block files in order; return an empty frame of `schema` if there are none."""
    if not paths:
        return pl.DataFrame(schema=schema)
    return pl.concat([pl.read_parquet(path, glob=False) for path in paths]).select(schema.names())


def _stored_shards(folder: Path) -> dict[str, list[Path]]:
    """Return the block files of a folder by key."""
    stored: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*-*.parquet")):
        stored.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return stored


def _first_intact(paths: Sequence[Path]) -> Path | None:
    for path in paths:
        if path.stem.rpartition("-")[2] == _digest(path.read_bytes()):
            return path
        logging.getLogger(__name__).warning("%s is damaged; computing the block again", path.name)
        path.unlink(missing_ok=True)
    return None


def _write_shard(folder: Path, key: str, table: pl.DataFrame) -> Path:
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    data = buffer.getvalue()
    path = folder / f"{key}-{_digest(data)}.parquet"
    write_bytes(path, data)
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class _Meter:
    """Report progress, rate and ETA every few seconds."""

    def __init__(self, what: str, total: int, progress: Progress) -> None:
        self.what, self.total, self.progress = what, total, progress
        self.done = 0
        self.started = self.reported = time.monotonic()

    def seconds_for(self, rows: int) -> float:
        """Return the expected seconds for `rows` rows at the rate so far; 0 if unknown."""
        return (time.monotonic() - self.started) / self.done * rows if self.done else 0.0

    def add(self, rows: int) -> None:
        self.done += rows
        now = time.monotonic()
        if now - self.reported < REPORT_EVERY_S and self.done < self.total:
            return
        self.reported = now
        rate = self.done / max(now - self.started, 1e-9)
        left = (self.total - self.done) / rate
        self.progress(f"{self.what}: {self.done} of {self.total}, {rate:.1f}/s, {left:.0f} s left")
