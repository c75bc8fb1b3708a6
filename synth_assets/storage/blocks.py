"""Resumable work: blocks of rows computed once, each kept as a file named by what made it and by what it holds.

A shard is `<key>-<digest>.parquet`: `key` is the fingerprint of everything that determines the block, `digest` the
hash of the file's bytes. It is written beside its place, synced and renamed, so a file under its final name is whole;
a byte flipped afterwards no longer matches the digest and the block is computed again.
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

from synth_assets.storage.atomic import sweep_temporaries, write_atomically
from synth_assets.storage.budgets import WorkBudget

BLOCK_ROWS = 64
REPORT_EVERY_S = 5.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Block:
    """Work that is always computed whole: its key, how many rows it asks for, and what it is computed from."""

    key: str
    rows: int
    payload: Any


def in_blocks(rows: Sequence[Any], size: int = BLOCK_ROWS) -> Iterator[Sequence[Any]]:
    """Consecutive runs of `size` rows; the last may be shorter."""
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
    """The shards of all blocks in order: those that exist and are intact, and the missing ones computed.

    Args:
        blocks: the work; equal keys mean equal results.
        compute: makes a block's table from its payload.
        folder: where shards lie; shared by all work whose keys differ.
        what: plural noun for the progress line ("rows", "candidates").
        progress: receives a line each few seconds with rate and ETA.
        budget: is asked before each missing block.

    Raises:
        BudgetError: the next block would exceed the budget; the finished ones are kept.
    """
    blocks = list(blocks)
    sweep_temporaries(folder)
    stored = _stored_shards(folder)
    found = {block.key: _first_intact(stored.get(block.key, [])) for block in blocks}
    missing = [block for block in blocks if found[block.key] is None]
    wanted = sum(block.rows for block in blocks)
    todo = sum(block.rows for block in missing)
    if todo < wanted:
        progress(f"{what}: {wanted - todo} of {wanted} were made before and are intact")
    meter = _Meter(what, todo, progress)
    for block in missing:
        if budget:
            budget.check(f"{wanted - todo + meter.done:,} of {wanted:,} {what} are made", meter.seconds_for(block.rows))
        found[block.key] = _write_shard(folder, block.key, compute(block.payload))
        meter.add(block.rows)
    return [path for block in blocks if (path := found[block.key]) is not None]


def read_blocks(paths: Sequence[Path], schema: pl.Schema) -> pl.DataFrame:
    """The shards one below the other, in order; an empty frame of `schema` when there are none."""
    if not paths:
        return pl.DataFrame(schema=schema)
    return pl.concat([pl.read_parquet(path, glob=False) for path in paths]).select(schema.names())


def _stored_shards(folder: Path) -> dict[str, list[Path]]:
    """The shards of a folder by key, found in one pass over it."""
    stored: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*-*.parquet")):
        stored.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return stored


def _first_intact(paths: Sequence[Path]) -> Path | None:
    for path in paths:
        if path.stem.rpartition("-")[2] == _digest(path.read_bytes()):
            return path
        logging.getLogger(__name__).warning("shard %s is damaged: it is removed and computed again", path.name)
        path.unlink(missing_ok=True)
    return None


def _write_shard(folder: Path, key: str, table: pl.DataFrame) -> Path:
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    data = buffer.getvalue()
    path = folder / f"{key}-{_digest(data)}.parquet"
    write_atomically(path, lambda temporary: _write_bytes(temporary, data))
    return path


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class _Meter:
    """Says every few seconds how far the work is, how fast it goes and when it ends."""

    def __init__(self, what: str, total: int, progress: Progress) -> None:
        self.what, self.total, self.progress = what, total, progress
        self.done = 0
        self.started = self.reported = time.monotonic()

    def seconds_for(self, rows: int) -> float:
        """Return how long so many rows take at the rate so far; 0 where nothing is known."""
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
