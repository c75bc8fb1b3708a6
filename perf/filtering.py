"""Measure the speed of filtering against common tools that do the same work on the same rows in the same process.

    python perf/filtering.py [ROWS]

Prints rows per CPU-second of the rules against a plain loop of regexes and Counters, and of the near-duplicate stage
against datasketch (pip install -c constraints.txt -e '.[benchmark]'; skipped otherwise), with recall and precision on
planted near-duplicates. Uses one core: POLARS_MAX_THREADS and OMP_NUM_THREADS are set to 1 before the imports.
"""

import os
import sys
import time

os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1")

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from growth import CUMULATIVE, VOCABULARY, as_text
from plain_rules import objection

from synth_assets.schemas.tables import BENCHMARK_ITEMS, INSTRUCTIONS
from synth_assets.stages.filtering.apply import apply_filters
from synth_assets.stages.filtering.decisions import CHUNK_ROWS
from synth_assets.stages.filtering.features import Features
from synth_assets.stages.filtering.rules import RULES
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.near_duplicates import NearDuplicates, first_of_kind
from synth_assets.text.token_limits import TokenLimits

ROWS = 20_000
WORDS = 252  # per text, about 1.7 kB
PLANTED_SHARE = 0.3
MAX_CHANGES = 5  # changed words in a planted copy: at most 25 of 248 shingles, similarity of at least .81
BASELINE_ROWS = 2_000
REPEATS = 3  # other processes slow down single calls
SLOW_RULES = {"not_english", "personal_data"}


def corpus(rows: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Generate texts of WORDS function words and rare words, and for each the row that it copies (-1: none)."""
    random = np.random.default_rng(seed)
    drawn = np.searchsorted(CUMULATIVE, random.random((rows, WORDS)) * CUMULATIVE[-1])
    original = np.full(rows, -1)
    first_copy = int(rows * (1 - PLANTED_SHARE))
    for row in range(first_copy, rows):
        original[row] = random.integers(0, first_copy)
        drawn[row] = drawn[original[row]]
        changes = random.integers(0, MAX_CHANGES + 1)
        drawn[row, random.integers(0, WORDS, changes)] = random.integers(0, VOCABULARY.size, changes)
    return [as_text(row) for row in VOCABULARY[drawn]], original


def table(texts: Sequence[str]) -> pl.DataFrame:
    """Return INSTRUCTIONS with the texts as responses."""
    prompts = [f"Write a text of {WORDS} words about subject {number}." for number in range(len(texts))]
    rows = pl.DataFrame({"row_id": prompts, "history": [[]] * len(prompts), "instruction": prompts, "response": texts})
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in INSTRUCTIONS.items() if name not in rows.columns]
    return rows.with_columns(missing).select(INSTRUCTIONS.names()).cast({"history": INSTRUCTIONS["history"]})


def run_rules(rows: pl.DataFrame, *, slow: bool) -> int:
    """Evaluate every rule on every row; return the number of rows that fail one."""
    failed = 0
    for chunk in rows.iter_slices(CHUNK_ROWS):
        features = Features(chunk, FilterSpec(), TokenLimits(lambda texts: [len(text) // 4 for text in texts], 1 << 30))
        chosen = [rule for rule in RULES if slow or rule.reason not in SLOW_RULES]
        failed += int(np.any([rule.fails(features, rule.measure(features)) for rule in chosen], axis=0).sum())
    return failed


def plain_loop(rows: pl.DataFrame) -> int:
    """Evaluate the rules except language and personal data row by row; return the number of rows that fail one."""
    return sum(
        bool(objection(instruction, response, 1 << 30))
        for instruction, response in rows.select("instruction", "response").iter_rows()
    )


def near(texts: Sequence[str]) -> np.ndarray:
    """Return a mask of the texts that are near-duplicates of an earlier one."""
    with NearDuplicates(FilterSpec().near_duplicate_similarity) as duplicates:
        for start in range(0, len(texts), CHUNK_ROWS):
            duplicates.add(texts[start : start + CHUNK_ROWS])
        leader, _ = first_of_kind(duplicates.pairs(), len(texts))
    return leader != np.arange(len(texts))


def near_datasketch(texts: Sequence[str]) -> int:
    """Do the same with datasketch's MinHash and LSH at its default of 128 permutations; return the number found."""
    from datasketch import MinHash, MinHashLSH

    index, count = MinHashLSH(threshold=0.8, num_perm=128), 0
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        sketch = MinHash(num_perm=128)
        sketch.update_batch([" ".join(words[start : start + 5]).encode() for start in range(len(words) - 4)])
        count += bool(index.query(sketch))
        index.insert(str(number), sketch)
    return count


def run_stage(texts: Sequence[str]) -> int:
    """Run the whole stage (rules, benchmark items, duplicates, both tables); return the number of kept rows."""
    rows = table(texts).with_columns(instruction="response", response=pl.lit("This is one short answer for all."))
    item = {"item_id": "i", "suite": "s", "prompt": "What is it that nobody has ever been asked by anyone?"}
    base = TokenLimits(lambda texts: [len(text) // 4 for text in texts], 1 << 30)
    with tempfile.TemporaryDirectory() as scratch:
        items = pl.DataFrame([item], schema=BENCHMARK_ITEMS)
        return apply_filters(rows.lazy(), items, FilterSpec(), base, Path(scratch)).fates.filter(fate="kept").height


def rows_per_s(work: Callable[[], object], rows: int, repeats: int = 1) -> float:
    """Return rows per CPU-second, the best of several calls."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return rows / min(seconds)


def main() -> None:
    """Run the measurements and print them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    texts, original = corpus(count)
    rows, few = table(texts), min(BASELINE_ROWS, count)
    run_rules(rows.head(64), slow=True)
    plain = rows_per_s(lambda: plain_loop(rows.head(few)), few, REPEATS)
    for name, slow in (("rules without language and personal data", False), ("all rules", True)):
        speed = rows_per_s(lambda slow=slow: run_rules(rows, slow=slow), count, REPEATS)
        print(f"{name}: {speed:,.0f} rows/s, {speed / plain:.1f} x a plain loop ({plain:,.0f})")
    started = time.process_time()
    duplicates = near(texts)
    speed = count / (time.process_time() - started)
    planted = original >= 0
    recall, precision = (
        (duplicates & planted).sum() / planted.sum(),
        (duplicates & planted).sum() / max(duplicates.sum(), 1),
    )
    print(f"near-duplicates: {speed:,.0f} rows/s, recall {recall:.4f}, precision {precision:.4f}")
    try:
        slow_speed = rows_per_s(lambda: near_datasketch(texts[:few]), few)
    except ImportError:
        print("skipped: datasketch is not installed, pip install -c constraints.txt -e '.[benchmark]'")
        return
    print(f"datasketch: {slow_speed:,.0f} rows/s; near-duplicates above: {speed / slow_speed:.1f} x as fast")
    whole = rows_per_s(lambda: run_stage(texts), count)
    print(f"whole stage, texts as instructions: {whole:,.0f} rows/s, {whole / slow_speed:.1f} x datasketch alone")


if __name__ == "__main__":
    main()
