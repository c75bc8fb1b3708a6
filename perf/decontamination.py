"""How many planted benchmark items decontamination finds, against how much of them survives.

    python perf/decontamination.py [FOLDER OF BENCHMARKS] [--rows FILE.jsonl ...]

Each prompt of eight words or more is planted between two made-up sentences, with 0 to 40 % of its words replaced at
random, and looked for. Prints the share that is found by the share of words changed, and by the share of the prompt's
8-grams that survived; then which of those with half of them left were not found. FOLDER holds mmlu/*.csv,
truthfulqa.csv and gsm8k_test.jsonl; without one, the embedded suites' items are used. FILE's rows, with the columns
instruction and output or response, are looked through for items as well: what is found there was planted by nobody.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from synth_assets.benchmarks.suite import item_table
from synth_assets.benchmarks.suites import find_suites
from synth_assets.filtering.decontamination import NGRAM_WORDS, Decontaminator
from synth_assets.filtering.spec import FilterSpec
from synth_assets.records import BENCHMARK_ITEMS
from synth_assets.text import hash_words, ngrams

SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
AT_ONCE = 1024
TEXT_BITS = np.uint64(48)
BEFORE, AFTER = "Somebody asked me this yesterday and I did not know: ", " Please explain it to me slowly."


def real_items(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Suite, prompt and choices of each item."""
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
    """BENCHMARK_ITEMS of a folder of benchmarks, or of the embedded suites."""
    if folder is None:
        return item_table(find_suites(("world_instructions", "world_choice")))
    records = [
        {"item_id": f"{suite}-{number}", "suite": suite, "split": "test", "prompt": prompt, "choices": choices}
        for number, (suite, prompt, choices) in enumerate(real_items(folder))
    ]
    return pl.DataFrame(records, schema=BENCHMARK_ITEMS)


def changed(prompt: str, share: float, random: np.random.Generator) -> str:
    """The prompt with so many of its words replaced."""
    words = prompt.split()
    for place in random.choice(len(words), round(share * len(words)), replace=False):
        words[place] = f"changed{random.integers(1_000_000)}"
    return " ".join(words)


def own_8grams(texts: list[str]) -> np.ndarray:
    """The distinct 8-grams of each text, its number in the upper bits."""
    words = hash_words(texts)
    hashes, first = ngrams(words, NGRAM_WORDS)
    return np.unique(words.text[first].astype(np.uint64) << TEXT_BITS | hashes >> np.uint64(16))


def surviving(prompts: list[str], planted: list[str]) -> np.ndarray:
    """The share of each prompt's distinct 8-grams that its planted copy still has."""
    own, left = own_8grams(prompts), own_8grams(planted)
    text = (own >> TEXT_BITS).astype(np.int64)
    return np.bincount(text, np.isin(own, left), len(prompts)) / np.bincount(text, minlength=len(prompts))


def measure(items: pl.DataFrame, cover: float) -> pl.DataFrame:
    """For each planted item the share of words changed, the cover that survived, and whether any item was found."""
    decontaminator, random = Decontaminator(items, cover), np.random.default_rng(0)
    prompts = items["prompt"].unique(maintain_order=True).to_list()
    long = np.flatnonzero(hash_words(prompts).counts() >= NGRAM_WORDS).tolist()
    parts: list[pl.DataFrame] = []
    for share in SHARES:
        for start in range(0, len(long), AT_ONCE):
            asked = [prompts[place] for place in long[start : start + AT_ONCE]]
            planted = [changed(prompt, share, random) for prompt in asked]
            hits = decontaminator.find(pl.Series([f"{BEFORE}{text}{AFTER}" for text in planted]))
            found = [bool(item) for item in hits.item]
            facts = {"cover": surviving(asked, planted), "found": found, "planted": planted}
            parts.append(pl.DataFrame(facts).with_columns(pl.lit(share).alias("words changed")))
    return pl.concat(parts)


def show(cases: pl.DataFrame) -> None:
    """Print both curves."""
    bands = [(low / 10, low / 10 + 0.1) for low in range(10)]
    print("| words changed | planted | found |\n|---:|---:|---:|")
    for (share,), part in cases.group_by("words changed", maintain_order=True):
        print(f"| {share:.0%} | {part.height} | {part['found'].mean():.2%} |")
    print("\n| surviving cover | planted | found |\n|---|---:|---:|")
    for low, high in bands:
        last = high > 0.95
        part = cases.filter((pl.col("cover") >= low) & (last | (pl.col("cover") < high)))
        if part.height:
            print(f"| {low:.1f} to {high:.1f} | {part.height} | {part['found'].mean():.2%} |")
    half = cases.filter(pl.col("cover") >= 0.5)
    print(f"\nof cover .5 or more: {half['found'].sum()} of {half.height} found")
    for cover, planted in half.filter(~pl.col("found")).select("cover", "planted").unique().sort("planted").iter_rows():
        print(f"  not found: {cover:.2f} {planted!r}")


def look_through(items: pl.DataFrame, path: Path, cover: float) -> None:
    """Print the items that the rows of a file repeat."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    asked = pl.Series([f"{row['instruction']}\n{row.get('input') or ''}".strip() for row in rows])
    hits = Decontaminator(items, cover).find(asked, pl.Series([row.get("output", row.get("response")) for row in rows]))
    found = [(item, share, text) for item, share, text in zip(hits.item, hits.cover, asked, strict=True) if item]
    print(f"{path.name}: {len(found)} of {len(rows)} rows repeat an item")
    for item, share, text in found[:10]:
        print(f"  {item} {share:.2f} {text[:80]!r}")


def main() -> None:
    """Print both curves, and what the files hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", nargs="*", type=Path, default=[])
    given = parser.parse_args()
    items, cover = items_of(given.folder), FilterSpec().benchmark_cover
    print(f"{items.height} items of {', '.join(sorted(items['suite'].unique()))}")
    show(measure(items, cover))
    for path in given.rows:
        look_through(items, path, cover)


if __name__ == "__main__":
    main()
