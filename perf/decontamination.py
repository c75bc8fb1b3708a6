"""Measure the recall of decontamination on planted benchmark items.

    python perf/decontamination.py [FOLDER OF BENCHMARKS] [--rows FILE.jsonl ...]

Plants each prompt of eight words or more between two synthetic sentences, with 0 to 40 % of its words replaced at
random, and searches for it. Prints the recall by the share of changed words and by the share of the prompt's own
8-grams that survived, then the prompts that were missed although half of their 8-grams survived. A prompt's own
8-grams are those that at most BOILERPLATE_ITEMS prompts share; the others ("Which of the following is an example of")
do not identify an item. Prompts without own 8-grams are counted separately. FOLDER contains mmlu/*.csv, truthfulqa.csv
and gsm8k_test.jsonl; without it, the items of the embedded suites are used. The rows of FILE, with the columns
instruction and output or response, are searched for items as well; matches there were not planted.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.evals.suite import item_table
from synth_assets.evals.suites import find_suites
from synth_assets.schemas.tables import BENCHMARK_ITEMS
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.decontamination import BOILERPLATE_ITEMS, NGRAM_WORDS, Decontaminator
from synth_assets.text.words import hash_words, ngrams

SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
CHUNK_ROWS = 1024
TEXT_BITS = np.uint64(48)
GRAM_MASK = np.uint64((1 << 48) - 1)
BEFORE, AFTER = "Somebody asked me this yesterday and I did not know: ", " Please explain it to me slowly."


def real_items(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield suite, prompt and choices of each item."""
    for path in sorted(folder.glob("mmlu/*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield "mmlu", row["question"], [row[f"choice{number}"] for number in range(4)]
    with (folder / "truthfulqa.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield "truthfulqa", row["Question"], []
    for line in (folder / "gsm8k_test.jsonl").read_text("utf-8").splitlines():
        yield "gsm8k", json.loads(line)["question"], []


def items_of(folder: Path | None) -> pl.DataFrame:
    """Return the BENCHMARK_ITEMS of a folder of benchmarks, or of the embedded suites."""
    if folder is None:
        return item_table(find_suites(("world_instructions", "world_choice")))
    records = [
        {"item_id": f"{suite}-{number}", "suite": suite, "split": "test", "prompt": prompt, "choices": choices}
        for number, (suite, prompt, choices) in enumerate(real_items(folder))
    ]
    return pl.DataFrame(records, schema=BENCHMARK_ITEMS)


def change_words(prompt: str, share: float, random: np.random.Generator) -> str:
    """Replace a share of the words of a prompt."""
    words = prompt.split()
    for index in random.choice(len(words), round(share * len(words)), replace=False):
        words[index] = f"changed{random.integers(1_000_000)}"
    return " ".join(words)


def distinct_8grams(texts: list[str]) -> np.ndarray:
    """Return the distinct 8-grams of each text, with the index of the text in the upper bits."""
    words = hash_words(texts)
    hashes, first = ngrams(words, NGRAM_WORDS)
    return np.unique(words.text[first].astype(np.uint64) << TEXT_BITS | hashes >> np.uint64(16))


def boilerplate(prompts: list[str]) -> np.ndarray:
    """Return the 8-grams, without a text index, that more than BOILERPLATE_ITEMS prompts share."""
    grams, spread = np.unique(distinct_8grams(prompts) & GRAM_MASK, return_counts=True)
    return grams[spread > BOILERPLATE_ITEMS]


def surviving(prompts: list[str], planted: list[str], common: np.ndarray) -> np.ndarray:
    """Return the share of each prompt's own 8-grams that its planted copy contains; NaN if it has none."""
    grams, planted_grams = distinct_8grams(prompts), distinct_8grams(planted)
    grams = grams[~np.isin(grams & GRAM_MASK, common)]
    text = (grams >> TEXT_BITS).astype(np.int64)
    sizes = np.bincount(text, minlength=len(prompts))
    kept = np.bincount(text, np.isin(grams, planted_grams), len(prompts))
    return np.divide(kept, sizes, out=np.full(len(prompts), np.nan), where=sizes > 0)


def measure(items: pl.DataFrame, cover: float) -> pl.DataFrame:
    """Return for each planted item the share of changed words, the surviving cover and whether it was found."""
    decontaminator, random = Decontaminator(items, cover), np.random.default_rng(0)
    prompts = items["prompt"].unique(maintain_order=True).to_list()
    long = np.flatnonzero(hash_words(prompts).counts() >= NGRAM_WORDS).tolist()
    common = boilerplate(prompts)
    parts: list[pl.DataFrame] = []
    for share in SHARES:
        for start in range(0, len(long), CHUNK_ROWS):
            originals = [prompts[index] for index in long[start : start + CHUNK_ROWS]]
            planted = [change_words(prompt, share, random) for prompt in originals]
            hits = decontaminator.find(pl.Series([f"{BEFORE}{text}{AFTER}" for text in planted]))
            found = [bool(item) for item in hits.item]
            columns = {"cover": surviving(originals, planted, common), "found": found, "planted": planted}
            parts.append(pl.DataFrame(columns).with_columns(pl.lit(share).alias("words changed")))
    return pl.concat(parts)


def show(cases: pl.DataFrame) -> None:
    """Print recall by changed words and by surviving cover."""
    bands = [(low / 10, low / 10 + 0.1) for low in range(10)]
    print("| words changed | planted | found |\n|---:|---:|---:|")
    for (share,), part in cases.group_by("words changed", maintain_order=True):
        print(f"| {share:.0%} | {part.height} | {part['found'].mean():.2%} |")
    covered = cases.filter(pl.col("cover").is_not_nan())
    print("\n| surviving cover | planted | found |\n|---|---:|---:|")
    for low, high in bands:
        last = high > 0.95
        part = covered.filter((pl.col("cover") >= low) & (last | (pl.col("cover") < high)))
        if part.height:
            print(f"| {low:.1f} to {high:.1f} | {part.height} | {part['found'].mean():.2%} |")
    half, none = covered.filter(pl.col("cover") >= 0.5), cases.filter(pl.col("cover").is_nan())
    print(f"\ncover .5 or more: {half['found'].sum()} of {half.height} found")
    print(f"prompts without an 8-gram of their own: {none['found'].sum()} of {none.height} found")
    for cover, planted in half.filter(~pl.col("found")).select("cover", "planted").unique().sort("planted").iter_rows():
        print(f"  not found: {cover:.2f} {planted!r}")


def print_contamination(items: pl.DataFrame, path: Path, cover: float) -> None:
    """Print the items that the rows of a file contain."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    instructions = pl.Series([f"{row['instruction']}\n{row.get('input') or ''}".strip() for row in rows])
    responses = pl.Series([row.get("output", row.get("response")) for row in rows])
    hits = Decontaminator(items, cover).find(instructions, responses)
    matches = [hit for hit in zip(hits.item, hits.cover, instructions, strict=True) if hit[0]]
    print(f"{path.name}: {len(matches)} of {len(rows)} rows contain an item")
    for item, share, text in matches[:10]:
        print(f"  {item} {share:.2f} {text[:80]!r}")


def main() -> None:
    """Parse the arguments and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    items, cover = items_of(options.folder), FilterSpec().benchmark_cover
    print(f"{items.height} items of {', '.join(sorted(items['suite'].unique()))}")
    show(measure(items, cover))
    for path in options.rows:
        print_contamination(items, path, cover)


if __name__ == "__main__":
    main()
