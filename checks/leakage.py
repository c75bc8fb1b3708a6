"""Detect texts that occur in two splits, or in a split and a benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import dagster as dg
import numpy as np
import polars as pl

from checks.sentences import sentence
from synth_assets.stages.filtering.decisions import chunks
from synth_assets.text.decontamination import Decontaminator
from synth_assets.text.near_duplicates import NearDuplicates, hash_tasks
from synth_assets.text.words import normalise

REMEDY = (
    "Materialise filtered_instructions and what follows again; if the texts come from a file, remove them there. "
    "Examples are in the metadata"
)
MAX_SHOWN_TEXTS = 5
MAX_SHOWN_CHARACTERS = 200
NEAR_SIMILARITY = 0.8  # of 5-word shingles; filter and split use .8 and .6
ITEM_COVER = 0.5  # of an item's 8-grams, as in Tulu 3 (Lambert et al. 2024, arXiv 2411.15124)


def normalised(text: pl.Expr) -> pl.Expr:
    """Return `text` as duplicates are compared: folded, in lower case, with single spaces; empty if null."""
    return text.map_batches(_normalise, return_dtype=pl.String)


def _normalise(texts: pl.Series) -> pl.Series:
    return pl.Series([normalise(text or "") for text in texts], dtype=pl.String)


def prompt_key(table: pl.LazyFrame) -> pl.Expr:
    """Return the normalised prompt of a row: its earlier turns, if the table has them, and its instruction."""
    if "history" not in table.collect_schema():
        return normalised(pl.col("instruction"))
    turns = pl.col("history").list.eval(pl.element().struct.field("content")).list.join("\n", ignore_nulls=True)
    return normalised(pl.concat_str(turns.fill_null(""), pl.col("instruction"), separator="\n", ignore_nulls=True))


def shared(first: pl.LazyFrame, first_key: pl.Expr, second: pl.LazyFrame, second_key: pl.Expr) -> list[str]:
    """Return the keys that occur in both tables, sorted."""
    left = first.select(key=first_key).unique()
    right = second.select(key=second_key).unique()
    return left.join(right, on="key", how="semi").sort("key").collect()["key"].to_list()


def leaks_between_splits(table: pl.LazyFrame, key: pl.Expr, line: Sequence[str]) -> list[str]:
    """Return the keys that occur in both splits of `line`."""
    first, second = (table.filter(pl.col("split") == split) for split in line)
    return shared(first, key, second, key)


@dataclass(frozen=True)
class Crossings:
    """Texts that occur in two splits.

    Attributes:
        splits: names of the splits, then of the benchmark suites.
        texts: (earlier split, later split) -> normalised texts of the later split that the earlier one has too.
    """

    splits: list[str]
    texts: dict[tuple[str, str], list[str]]

    def shared_texts(self, first: str, second: str) -> list[str]:
        """Return the texts that two splits share."""
        return [*self.texts.get((first, second), ()), *self.texts.get((second, first), ())]

    def table(self) -> str:
        """Return the matrix of counts as Markdown, with dots on the diagonal."""
        head = ["| |", *(f" {name} |" for name in self.splits)]
        rule = ["|---|", *("---:|" for _ in self.splits)]
        rows = [
            [
                f"| {first} |",
                *(
                    " . |" if first == second else f" {len(self.shared_texts(first, second))} |"
                    for second in self.splits
                ),
            ]
            for first in self.splits
        ]
        return "\n".join("".join(cells) for cells in (head, rule, *rows))


def crossings(splits: Mapping[str, pl.LazyFrame], items: pl.LazyFrame) -> Crossings:
    """Return the prompts that occur, exactly or nearly, in two splits, and the rows that contain a benchmark item.

    They are computed from the stored texts, independent of the stored groups.

    Args:
        splits: rows by name, as from `sides_of`.
        items: BENCHMARK_ITEMS.
    """
    table = items.collect()
    names = [*splits, *sorted(table["suite"].drop_nulls().unique())]
    return Crossings(names, {**_between(splits), **_with_items(splits, table)})


def sides_of(table: pl.LazyFrame, answers: Sequence[str], splits: Mapping[str, str]) -> dict[str, pl.LazyFrame]:
    """Return the columns of a table of instructions or pairs that `crossings` reads; `asked` is normalised.

    Args:
        table: has the columns instruction and split, and optionally history.
        answers: columns of its answers.
        splits: value of the column split by name in the matrix.
    """
    responses = pl.concat_str(answers, separator="\n", ignore_nulls=True)
    texts = table.select(
        "split", prompt_key(table).alias("asked"), pl.col("instruction").fill_null(""), answers=responses
    )
    return {name: texts.filter(pl.col("split") == split).drop("split") for name, split in splits.items()}


def _between(splits: Mapping[str, pl.LazyFrame]) -> dict[tuple[str, str], list[str]]:
    names = list(splits)
    hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    with NearDuplicates(NEAR_SIMILARITY) as near:
        for number, table in enumerate(splits.values()):
            for chunk in chunks(table.select("asked")):
                texts = chunk["asked"].to_list()
                near.add(texts)
                hashes.append(hash_tasks(texts))
                owners.append(np.full(len(texts), number))
        similar = near.pairs()
    text, owner = np.concatenate(hashes), np.concatenate(owners)
    starts = np.searchsorted(owner, np.arange(len(names)))
    non_empty = text != hash_tasks([""])
    shared_texts: dict[tuple[str, str], list[str]] = {}
    for first, second in combinations(range(len(names)), 2):
        crossing = (owner[similar.first] == first) & (owner[similar.second] == second)
        later = np.flatnonzero((owner == second) & non_empty & np.isin(text, text[owner == first]))
        indices = np.union1d(later, similar.second[crossing]) - starts[second]
        table = splits[names[second]].select("asked").with_row_index("place")
        texts = table.filter(pl.col("place").is_in(indices.tolist())).select("asked").unique().sort("asked").collect()
        shared_texts[names[first], names[second]] = texts["asked"].to_list()
    return shared_texts


def _with_items(splits: Mapping[str, pl.LazyFrame], items: pl.DataFrame) -> dict[tuple[str, str], list[str]]:
    usable = items.filter(pl.col("prompt").fill_null("").str.strip_chars() != "")
    suite = dict(items.select("item_id", "suite").iter_rows())
    shared_texts: dict[tuple[str, str], list[str]] = {}
    if usable.is_empty():
        return shared_texts
    decontaminator = Decontaminator(usable, ITEM_COVER)
    for name, table in splits.items():
        for chunk in chunks(table):
            hits = decontaminator.find(chunk["instruction"], chunk["asked"], chunk["answers"])
            for asked, item in zip(chunk["asked"], hits.item, strict=True):
                if item:
                    shared_texts.setdefault((name, suite[item]), []).append(asked)
    return shared_texts


def leakage_result(leaks: Mapping[str, list[str]], matrix: str = "") -> dg.AssetCheckResult:
    """Return a result that passes without leaks, with the number of each kind, some examples and the matrix."""
    counts = {kind.replace("_", " "): len(texts) for kind, texts in leaks.items()}
    shown = {kind: count for kind, count in counts.items() if count} or counts
    found = ", ".join(f"{kind}: {count}" for kind, count in shown.items())
    metadata: dict[str, dg.MetadataValue] = {kind: dg.MetadataValue.int(len(texts)) for kind, texts in leaks.items()}
    if examples := [text[:MAX_SHOWN_CHARACTERS] for texts in leaks.values() for text in texts]:
        metadata["examples"] = dg.MetadataValue.json(examples[:MAX_SHOWN_TEXTS])
    if matrix:
        metadata["matrix"] = dg.MetadataValue.md(matrix)
    return dg.AssetCheckResult(
        passed=not examples,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(found, "none allowed", REMEDY, passed=not examples),
        metadata=metadata,
    )
