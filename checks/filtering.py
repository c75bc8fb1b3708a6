"""Checks of the stage filtering: number of rows, decontamination, and leakage between splits."""

import dagster as dg
import polars as pl

from checks.great_expectations import Expectation, between, expectation_checks, one_of, present, unique, written
from checks.grouping import checks_of
from checks.leakage import (
    crossings,
    leakage_result,
    leaks_between_splits,
    normalised,
    shared,
    sides_of,
)
from checks.sentences import sentence
from resources.hardware import Hardware

SPLITS = ("train", "validation")
MAX_VALIDATION_RATE = 0.3
FEW_ROWS = 1_000  # the size of LIMA's training set (Zhou et al. 2023, arXiv 2305.11206)
MIN_DISTINCT_RATE = 0.99  # exact duplicates are dropped; the same instruction may follow different earlier turns

KEPT_COLUMNS = (
    present("row_id", "row_ids_are_present"),
    unique("row_id", "row_ids_are_unique"),
    present("source", "sources_are_present"),
    written("instruction", "instructions_are_written"),
    written("response", "responses_are_written"),
    between("instruction_tokens", "instruction_tokens_are_counted", 1),
    between("response_tokens", "response_tokens_are_counted", 1),
    one_of("response_finish_reason", "responses_ended_by_themselves", ["stop"]),
    between("score", "scores_are_rates", 0, 1),
)

filtered_instructions_expectations = expectation_checks(
    "filtered_instructions",
    (
        *KEPT_COLUMNS,
        Expectation(
            "instructions_are_distinct",
            "column_proportion_of_unique_values_to_be_between",
            {"column": "instruction", "min_value": MIN_DISTINCT_RATE},
            "warning",
            f"at least {MIN_DISTINCT_RATE:.0%} of the instructions are distinct",
        ),
    ),
)

rejected_instructions_expectations = expectation_checks(
    "rejected_instructions",
    (
        present("row_id", "row_ids_are_present"),
        unique("row_id", "row_ids_are_unique"),
        present("reason", "reasons_are_present"),
        Expectation(
            "reasons_are_names_of_rules",
            "column_values_to_match_regex",
            {"column": "reason", "regex": r"^[a-z][a-z0-9_]*$"},
            limit="reason is the name of a rule",
        ),
    ),
    blocking=False,
)

sft_dataset_expectations = expectation_checks(
    "sft_dataset",
    (
        *KEPT_COLUMNS,
        present("group", "groups_are_present"),
        present("split", "splits_are_present"),
        one_of("split", "splits_are_known", SPLITS),
    ),
)

filtered_preferences_expectations = expectation_checks(
    "filtered_preferences",
    (
        present("pair_id", "pair_ids_are_present"),
        unique("pair_id", "pair_ids_are_unique"),
        present("group", "groups_are_present"),
        present("source", "sources_are_present"),
        written("instruction", "instructions_are_written"),
        written("chosen", "chosen_responses_are_written"),
        written("rejected", "rejected_responses_are_written"),
    ),
    row_id="pair_id",
)

rejected_preferences_expectations = expectation_checks(
    "rejected_preferences",
    (
        present("pair_id", "pair_ids_are_present"),
        unique("pair_id", "pair_ids_are_unique"),
        present("reason", "reasons_are_present"),
    ),
    row_id="pair_id",
    blocking=False,
)


def enough_instructions_remain(filtered_instructions: pl.LazyFrame, hardware: Hardware) -> dg.AssetCheckResult:
    """Check that at least the tier's minimum of instructions is left; with fewer rows, training is blocked."""
    rows = filtered_instructions.select(pl.len()).collect().item()
    min_rows = hardware.limits().min_rows
    return dg.AssetCheckResult(
        passed=rows >= min_rows,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(
            f"{rows:,} instructions are left after the filter",
            f"at least {min_rows:,} needed",
            "Generate more (synth run --samples N), import data (synth import FILE), or loosen the rule that rejects "
            "most (the metadata of filtered_instructions)",
            passed=rows >= min_rows,
        ),
        metadata={"rows": rows, "wanted": min_rows, "rows_of_lima": FEW_ROWS},
    )


def no_benchmark_item_remains(
    filtered_instructions: pl.LazyFrame, benchmark_items: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Check that no kept instruction equals the prompt of a benchmark item, ignoring case and white space."""
    instruction, prompt = normalised(pl.col("instruction")), normalised(pl.col("prompt"))
    return leakage_result({"benchmark_prompts": shared(filtered_instructions, instruction, benchmark_items, prompt)})


def kept_rows_were_not_rejected(
    filtered_instructions: pl.LazyFrame, rejected_instructions: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Check that no instruction is both kept and rejected."""
    row_id = pl.col("row_id")
    return leakage_result({"rows_judged_twice": shared(filtered_instructions, row_id, rejected_instructions, row_id)})


def kept_pairs_were_not_rejected(
    filtered_preferences: pl.LazyFrame, rejected_preferences: pl.LazyFrame
) -> dg.AssetCheckResult:
    """Check that no imported pair is both kept and rejected."""
    pair_id = pl.col("pair_id")
    return leakage_result({"pairs_judged_twice": shared(filtered_preferences, pair_id, rejected_preferences, pair_id)})


def no_leakage_between_splits(sft_dataset: pl.LazyFrame, benchmark_items: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that train and validation share no (near-duplicate) instruction or group, and no benchmark item."""
    crossing = crossings(sides_of(sft_dataset, ["response"], {name: name for name in SPLITS}), benchmark_items)
    suites = [name for name in crossing.splits if name not in SPLITS]
    return leakage_result(
        {
            "shared_instructions": crossing.shared_texts(*SPLITS),
            "shared_groups": leaks_between_splits(sft_dataset, pl.col("group"), SPLITS),
            "benchmark_items": [
                text for side in SPLITS for suite in suites for text in crossing.shared_texts(side, suite)
            ],
        },
        crossing.table(),
    )


def validation_is_a_small_share(sft_dataset: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that there are validation rows, at most MAX_VALIDATION_RATE of all rows."""
    validation = pl.col("split") == "validation"
    rate = sft_dataset.select(validation.mean()).collect().item() or 0.0
    passed = 0.0 < rate <= MAX_VALIDATION_RATE
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=sentence(
            f"{rate:.1%} of the rows are for validation",
            f"more than 0 % and at most {MAX_VALIDATION_RATE:.0%} allowed",
            "Change sft_dataset.validation_fraction, or generate or import more rows",
            passed=passed,
        ),
        metadata={"validation_rate": rate, "wanted_at_most": MAX_VALIDATION_RATE},
    )


filtered_instructions_checks = checks_of(
    "filtered_instructions",
    blocking=(enough_instructions_remain, no_benchmark_item_remains),
    watching=(kept_rows_were_not_rejected,),
)

sft_dataset_checks = checks_of(
    "sft_dataset",
    blocking=(no_leakage_between_splits, validation_is_a_small_share),
)

filtered_preferences_checks = checks_of("filtered_preferences", watching=(kept_pairs_were_not_rejected,))
