"""Checks of the stage benchmarks: completeness of items, and leakage between splits."""

from itertools import combinations

import dagster as dg
import polars as pl

from checks.great_expectations import expectation_checks, one_of, present, unique, written
from checks.grouping import checks_of
from checks.leakage import leakage_result, leaks_between_splits, normalised
from checks.sentences import none_allowed
from synth_assets.evals.suite import KINDS, SEALED, SPLITS

benchmark_items_expectations = expectation_checks(
    "benchmark_items",
    (
        present("item_id", "item_ids_are_present"),
        unique("item_id", "item_ids_are_unique"),
        present("suite", "suites_are_named"),
        one_of("split", "splits_are_known", (*SPLITS, SEALED)),
        one_of("kind", "kinds_are_known", KINDS),
        written("prompt", "prompts_are_written"),
        present("cluster", "clusters_are_present"),
        present("item_hash", "item_hashes_are_present"),
    ),
    row_id="item_id",
)


def no_leakage_between_splits(benchmark_items: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that no prompt is in two of the splits validation, test and sealed."""
    prompt = normalised(pl.col("prompt"))
    split_pairs = combinations((*SPLITS, SEALED), 2)
    return leakage_result(
        {f"{a} and {b}": leaks_between_splits(benchmark_items, prompt, (a, b)) for a, b in split_pairs}
    )


def answers_are_among_the_choices(benchmark_items: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that every item has an answer: for a choice item, the index of one of two or more distinct choices."""
    index = pl.col("answer").cast(pl.Int64, strict=False)
    choices = pl.col("choices").list.len()
    distinct = (choices >= 2) & (pl.col("choices").list.n_unique() == choices)
    choice_is_right = distinct & index.is_between(0, choices.cast(pl.Int64) - 1)
    valid = pl.when(pl.col("kind") == "choice").then(choice_is_right).otherwise(pl.col("answer").is_not_null())
    wrong = benchmark_items.filter(~valid.fill_null(value=False)).select("item_id").collect()["item_id"]
    return dg.AssetCheckResult(
        passed=wrong.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        description=none_allowed(wrong.to_list(), "items without a valid answer", "Correct them in the benchmark file"),
        metadata={"items_without_answer": len(wrong), "examples": dg.MetadataValue.json(wrong.head(5).to_list())},
    )


benchmark_items_checks = checks_of(
    "benchmark_items",
    blocking=(no_leakage_between_splits, answers_are_among_the_choices),
)
