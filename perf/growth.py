"""Measure how time and memory of filtering scale with the number of rows, by default 15,000 and 150,000.

    python perf/growth.py [ROWS ...] [--folder FOLDER]

For each number of rows, generates Parquet files (about 1.7 kB per row, 30 % near-duplicates of any earlier row, one row
in a thousand with a benchmark item), then filters, hashes, stores and splits them as the assets do, in a separate
process on one core. Prints CPU-seconds and rows per CPU-second of each part, and the peak resident memory of the
process. FOLDER, by default the temporary folder of the system, needs about 7 kB per row and is emptied afterwards.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np
import polars as pl

from resources.storage import ROW_GROUP_ROWS
from synth_assets.schemas.tables import BENCHMARK_ITEMS, INSTRUCTIONS
from synth_assets.stages.filtering.apply import apply_filters
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stages.filtering.split import SplitSpec, split
from synth_assets.storage.manifests import content_hash
from synth_assets.text.token_limits import TokenLimits

T = TypeVar("T")

SIZES = (15_000, 150_000)
CHUNK_ROWS = 15_000
WORDS = 264
PLANTED_SHARE = 0.3
MAX_CHANGES = 5  # changed words in a planted copy: at most 25 of 260 shingles, similarity of at least .82
ITEMS, ITEM_WORDS, ITEM_EVERY = 2_000, 40, 1_000
FUNCTION_WORDS = "the and of to in that is was for with are this from you they it be as on at by or an have not".split()  # noqa: SIM905  (easier to read than a list)
SYLLABLES = "ba con der el fi gra hu in jo kel lo mer nu or pal qui ra sto".split()  # noqa: SIM905
VOCABULARY = np.array([*FUNCTION_WORDS, *(a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES)])
CUMULATIVE = np.cumsum(1 / np.arange(2, VOCABULARY.size + 2))
TOKENS_PER_BYTE = 0.25


def drawn(chunk: int, rows: int, words: int) -> np.ndarray:
    """Draw word indices from a skewed distribution, reproducible per chunk."""
    random = np.random.default_rng([7, chunk])
    return np.searchsorted(CUMULATIVE, random.random((rows, words)) * CUMULATIVE[-1])


def as_text(words: np.ndarray) -> str:
    """Join words to sentences of twelve words, four sentences per line."""
    sentences = [" ".join(words[start : start + 12]).capitalize() + "." for start in range(0, len(words), 12)]
    return "\n".join(" ".join(sentences[start : start + 4]) for start in range(0, len(sentences), 4))


def items() -> pl.DataFrame:
    """Return BENCHMARK_ITEMS with other words than the rows."""
    prompts = [as_text(words) for words in VOCABULARY[drawn(-1 % 2**32, ITEMS, ITEM_WORDS)]]
    records = [
        {"item_id": f"item-{number}", "suite": "made", "split": "test", "kind": "generation", "prompt": prompt}
        for number, prompt in enumerate(prompts)
    ]
    return pl.DataFrame(records, schema=BENCHMARK_ITEMS)


def chunks(rows: int) -> Iterator[pl.DataFrame]:
    """Yield INSTRUCTIONS with `rows` rows in chunks of CHUNK_ROWS."""
    prompts = items()["prompt"]
    for start in range(0, rows, CHUNK_ROWS):
        size, chunk = min(CHUNK_ROWS, rows - start), start // CHUNK_ROWS
        words, earlier = drawn(chunk, size, WORDS), drawn(chunk // 2, CHUNK_ROWS, WORDS)
        random = np.random.default_rng([8, chunk])
        for row in range(int(size * (1 - PLANTED_SHARE)), size):
            words[row] = earlier[random.integers(0, int(size * (1 - PLANTED_SHARE)))]
            changed = random.integers(0, WORDS, random.integers(0, MAX_CHANGES + 1))
            words[row, changed] = random.integers(0, VOCABULARY.size, changed.size)
        instructions = [as_text(row) for row in VOCABULARY[words]]
        for row in range(0, size, ITEM_EVERY):
            instructions[row] += "\n" + prompts[(start + row) // ITEM_EVERY % ITEMS]
        ids = [f"{chunk:06}-{row:06}" for row in np.random.default_rng([9, chunk]).permutation(size)]
        table = pl.DataFrame({"row_id": ids, "instruction": instructions}).with_columns(
            source=pl.lit("made"), batch=pl.lit("made"), response=pl.lit("This is one short answer for all.")
        )
        missing = [pl.lit(None, kind).alias(name) for name, kind in INSTRUCTIONS.items() if name not in table.columns]
        yield (
            table.with_columns(missing)
            .with_columns(history=pl.lit([], INSTRUCTIONS["history"]))
            .select(INSTRUCTIONS.names())
        )


def write(rows: int, folder: Path) -> None:
    """Generate the rows and write them to files; print progress."""
    for number, table in enumerate(chunks(rows)):
        table.write_parquet(folder / f"rows-{number:06}.parquet", compression="zstd", row_group_size=ROW_GROUP_ROWS)
        if number % 10 == 9:
            print(f"  generated {(number + 1) * CHUNK_ROWS:,} of {rows:,} rows", file=sys.stderr)


def measure(folder: Path) -> dict[str, float]:
    """Return the CPU-seconds of each part of filtering the rows in a folder, and the peak memory in bytes."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.process_time()
        result = work()
        seconds[name] = time.process_time() - started
        print(f"  {name}: {seconds[name]:.0f} CPU-s, {_peak() / 1e9:.2f} GB peak memory so far", file=sys.stderr)
        return result

    rows = pl.scan_parquet(sorted(folder.glob("rows-*.parquet")), glob=False)
    base = TokenLimits(tokens, 1 << 30)
    result = timed("filter", lambda: apply_filters(rows, items(), FilterSpec(), base, folder))
    for name, table in (("filtered_instructions", result.kept), ("rejected_instructions", result.rejected)):
        timed(f"hash {name}", lambda table=table: content_hash(table))
        timed(f"store {name}", lambda name=name, table=table: store(table, folder / f"{name}.parquet"))
    kept = pl.scan_parquet(folder / "filtered_instructions.parquet")
    splits = timed("split", lambda: split(kept, SplitSpec(), folder))
    timed("store sft_dataset", lambda: store(splits, folder / "sft_dataset.parquet"))
    print(f"  {result.reasons}", file=sys.stderr)
    return {**seconds, "peak_bytes": _peak(), **{f"rejected as {k}": n for k, n in result.reasons.items()}}


def store(table: pl.LazyFrame, path: Path) -> None:
    """Write a table with the settings of the IO manager."""
    table.sink_parquet(path, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def tokens(texts: Sequence[str]) -> list[int]:
    """Estimate the number of tokens of each text."""
    return [int(len(text) * TOKENS_PER_BYTE) for text in texts]


def _peak() -> float:
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure each number of rows and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, default=SIZES)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure))))
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="growth-") as folder:
            write(rows, Path(folder))
            command = [sys.executable, __file__, "--measure", folder]
            measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        parts = {name: value for name, value in measured.items() if not name.startswith(("peak", "rejected"))}
        total = sum(parts.values())
        print(f"{rows:>9,} rows: {total:.1f} CPU-s, {rows / total:,.0f} rows/s, {1e6 * total / rows:.0f} us per row")
        print("  ", ", ".join(f"{name} {1e6 * value / rows:.1f} us" for name, value in parts.items()))
        print(
            "  ",
            f"peak memory {measured['peak_bytes'] / 1e9:.2f} GB;",
            {k: v for k, v in measured.items() if k.startswith("rejected as")},
        )


if __name__ == "__main__":
    main()
