"""Measure recall and precision of the semantic rules on planted paraphrases, by threshold.

    python perf/semantic.py [--rows FILE.jsonl ...] [--benchmarks FOLDER]

Needs the fetched model in SYNTH_HOME: `synth models fetch minilm`. Each case of tests/filtering/paraphrases.jsonl has
an instruction, a paraphrase of it, and a hard negative: another task in mostly the same words. The instructions stand
first for earlier rows, then for benchmark items; the paraphrases and the negatives are rows. Recall: flagged
paraphrases; precision: share of the flagged rows that are paraphrases. The rules that compare words run on the same
cases. Of the FILES, with the column instruction, and of FOLDER, as in perf/decontamination.py, the flagged pairs are
counted and the weakest ones printed, to be read by a person.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from decontamination import items_of  # beside this script

from resources.deployment import home_folder
from resources.embeddings import Embeddings
from resources.storage import SynthHome
from synth_assets.schemas.tables import BENCHMARK_ITEMS
from synth_assets.stages.filtering.semantic import SemanticSpec
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.stats.intervals import wilson_interval
from synth_assets.text.decontamination import Decontaminator, indexed_texts
from synth_assets.text.embeddings import TextEmbedder, Vectors, cosines, nearest, semantic_repeats
from synth_assets.text.near_duplicates import NearDuplicates

CASES = Path(__file__).parents[1] / "tests" / "filtering" / "paraphrases.jsonl"
THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
SHOWN = 12


def pair_cosines(left: Vectors, right: Vectors) -> np.ndarray:
    """Return the cosine of each text with the one at its place."""
    return np.array([cosines(left[[place]], right[[place]])[0, 0] for place in range(len(left))])


def line(name: str, hits: np.ndarray, false: np.ndarray) -> str:
    """Return a row of the table: recall and precision with 95 % intervals."""
    cells = [name]
    for count, total in ((hits.sum(), hits.size), (hits.sum(), hits.sum() + false.sum())):
        if not total:
            cells.append("nothing flagged")
            continue
        low, high = wilson_interval(int(count), int(total))
        cells.append(f"{count} of {total}, {count / total:.1%} ({low:.1%} to {high:.1%})")
    return "| " + " | ".join(cells) + " |"


def by_words(cases: pl.DataFrame) -> None:
    """Print recall and precision of the rules that compare words."""
    flags = []
    for column in ("paraphrase", "negative"):
        with NearDuplicates(FilterSpec().near_duplicate_similarity) as near:
            near.add([*cases["original"], *cases[column]])
            pairs = near.pairs()
        flags.append(np.isin(np.arange(cases.height), pairs.first[pairs.second == pairs.first + cases.height]))
    print(line("near_duplicate", *flags))
    records = [{"item_id": str(place), "prompt": text} for place, text in enumerate(cases["original"])]
    items = Decontaminator(pl.DataFrame(records, schema=BENCHMARK_ITEMS), FilterSpec().benchmark_cover)
    found = [np.array([bool(item) for item in items.find(cases[name]).item]) for name in ("paraphrase", "negative")]
    print(line("benchmark_item", *found))


def by_meaning(cases: pl.DataFrame, embedder: TextEmbedder) -> None:
    """Print recall and precision by threshold: for duplicates of the own original, and of items by any original."""
    original, paraphrase, negative = (embedder.embed(cases[name].to_list()) for name in cases.columns)
    own = [pair_cosines(original, rows) for rows in (paraphrase, negative)]
    for threshold in THRESHOLDS:
        print(line(f"semantic_duplicate at {threshold:g}", *(values >= threshold for values in own)))
    index, best = nearest(paraphrase, original)
    false = nearest(negative, original)[1]
    for threshold in THRESHOLDS:
        hits = (best >= threshold) & (index == np.arange(cases.height))
        print(line(f"semantic_benchmark_item at {threshold:g}", hits, false >= threshold))
    order = np.argsort(-own[1])[:SHOWN]
    print("\nhard negatives that are most similar:")
    for place in order:
        print(f"  {own[1][place]:.2f} {cases['original'][int(place)]} / {cases['negative'][int(place)]}")
    print("paraphrases that are least similar:")
    for place in np.argsort(own[0])[:SHOWN]:
        print(f"  {own[0][place]:.2f} {cases['original'][int(place)]} / {cases['paraphrase'][int(place)]}")


def real_rows(path: Path, embedder: TextEmbedder, items: pl.DataFrame | None) -> None:
    """Print how many rows of a file are flagged at the chosen thresholds, and the weakest matches."""
    rows = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    texts = [f"{row['instruction']}\n{row.get('input') or ''}".strip() for row in rows]
    started = time.monotonic()
    vectors, spec = embedder.embed(texts), SemanticSpec()
    print(f"\n{path.name}: {len(texts)} rows in {time.monotonic() - started:.1f} s")
    repeats = semantic_repeats(vectors, np.arange(len(texts)), spec.semantic_duplicate_similarity)
    print(f"semantic_duplicate: {repeats.text.size}")
    for place in np.argsort(repeats.similarity)[:SHOWN]:
        pair = (texts[int(number)][:90] for number in (repeats.original[place], repeats.text[place]))
        print(f"  {repeats.similarity[place]:.2f} {' / '.join(map(repr, pair))}")
    if items is None:
        return
    prompts = indexed_texts(items)["text"].to_list()
    index, similarity = nearest(vectors, embedder.embed(prompts))
    flagged = np.flatnonzero(similarity >= spec.semantic_item_similarity)
    print(f"semantic_benchmark_item: {flagged.size} of {len(prompts)} items")
    for place in flagged[np.argsort(similarity[flagged])][:SHOWN]:
        print(f"  {similarity[place]:.2f} {prompts[int(index[place])][:90]!r} / {texts[int(place)][:90]!r}")


def main() -> None:
    """Parse the arguments and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", type=Path, default=[])
    parser.add_argument("--benchmarks", type=Path)
    options = parser.parse_args()
    embedder = Embeddings(home=SynthHome(folder=str(home_folder())), embedder_name="minilm").embedder()
    if embedder is None:
        raise SystemExit("no embedder")
    cases = pl.read_ndjson(CASES).select("original", "paraphrase", "negative")
    print(f"{cases.height} cases, {embedder.name}\n\n| rule | recall | precision |\n|---|---|---|")
    by_words(cases)
    by_meaning(cases, embedder)
    items = items_of(options.benchmarks) if options.benchmarks else None
    for path in options.rows:
        real_rows(path, embedder, items)


if __name__ == "__main__":
    main()
