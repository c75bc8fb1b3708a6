"""Each fault of the published data makes its check fail, and good data passes; the same on small files of our own."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from checks.filtering import no_leakage_between_splits
from checks.generation import (
    imports_are_diverse,
    imports_are_not_replayed,
    preferences_are_diverse,
    preferences_are_whole,
)
from checks.shape import PROFILES
from synth_assets.schemas.tables import BENCHMARK_ITEMS, SFT_ROWS
from synth_assets.stages.generation.imports import read_file
from tests.support.fakes import jsonl

MAGPIE, ALPACA = "magpie_llama31_first750.jsonl", "alpaca_en_first500.jsonl"
PREFERENCES, GOOD_PREFERENCES = "preference_llama31_first300.jsonl", "dpo_en_first150.jsonl"
VALIDATION_ROWS = 100
NO_ITEMS = pl.LazyFrame(schema=BENCHMARK_ITEMS)


def red(rows: pl.LazyFrame) -> set[str]:
    """The checks of imported instructions that do not pass."""
    results: Mapping[str, dg.AssetCheckResult] = {
        "imports_are_not_replayed": imports_are_not_replayed(rows),
        "imports_are_diverse": imports_are_diverse(rows),
        **{profile.name: profile.check_rows(rows) for profile in PROFILES},
    }
    return {name for name, result in results.items() if not result.passed}


def randomly_split(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows divided as if each were alone: the way by which validation rows come to stand in the training set."""
    table = rows.collect().sample(fraction=1, shuffle=True, seed=42)
    split = ["validation"] * VALIDATION_ROWS + ["train"] * (table.height - VALIDATION_ROWS)
    told = table.with_columns(score=pl.lit(1.0), group=pl.col("row_id"), split=pl.Series(split))
    return told.select(SFT_ROWS.names()).lazy()


def test_the_published_run_has_every_fault_but_language(test_data: Path) -> None:
    rows = read_file(test_data / MAGPIE).instructions
    assert red(rows) == {
        "imports_are_not_replayed",
        "imports_are_diverse",
        "instructions_ask",
        "texts_are_whole",
        "no_control_tokens_leak",
        "instructions_are_short",
        "topics_vary",
    }


def test_its_validation_rows_stand_in_its_training_set(test_data: Path) -> None:
    rows = read_file(test_data / MAGPIE).instructions
    found = no_leakage_between_splits(randomly_split(rows), NO_ITEMS)
    assert not found.passed
    assert int(str(found.metadata["shared_instructions"].value)) > VALIDATION_ROWS // 4


def test_alpaca_has_none_of_them(test_data: Path) -> None:
    rows = read_file(test_data / ALPACA).instructions
    assert red(rows) == set()


def test_published_pairs_repeat_prompts_and_stop_in_the_middle(test_data: Path) -> None:
    rows = read_file(test_data / PREFERENCES).preferences
    assert not preferences_are_diverse(rows).passed
    assert not preferences_are_whole(rows).passed
    good = read_file(test_data / GOOD_PREFERENCES).preferences
    assert preferences_are_diverse(good).passed
    assert preferences_are_whole(good).passed


THINGS = ("a crow", "the moon", "my bicycle", "rain", "tea", "an old map", "snow", "bread", "your street", "a whale")
TASKS = [f"{verb} {thing} in a few words." for verb in ("Describe", "Draw", "Praise", "Sell") for thing in THINGS]
SOLUTION = "## Step 1: Understand the problem\nWe are asked about {}."


def alpaca_file(path: Path, tasks: list[str], response: str = "It is what it is.") -> pl.LazyFrame:
    rows = [{"instruction": task, "input": "", "output": response} for task in tasks]
    return read_file(jsonl(path, *rows)).instructions


@pytest.mark.parametrize(
    ("tasks", "response", "wrong"),
    [
        (TASKS, "It is what it is.", set()),
        ([*TASKS, *TASKS[:6]], "It is what it is.", {"imports_are_not_replayed"}),
        ([*TASKS, *TASKS[:5]], "It is what it is.", set()),
        ([task for task in TASKS[:20] for _ in "12"], "It is.", {"imports_are_diverse"}),
        ([*TASKS, SOLUTION.format("crows"), SOLUTION.format("tea")], "It is.", set()),  # 2 of 42 is under .05
        ([*TASKS, *(SOLUTION.format(n) for n in "abc")], "It is.", {"instructions_ask"}),  # 3 of 43 is above
        (TASKS, "It is a crow,", {"texts_are_whole"}),
        (TASKS, "It is.</s>", {"no_control_tokens_leak"}),
        ([f"{task} {'And then tell me more about it. ' * 15}" for task in TASKS], "It is.", {"instructions_are_short"}),
        ([f"What is the number {n}?" for n in range(40)], "It is.", {"topics_vary"}),
        ([f"{n}: Erzähle mir bitte etwas über den Mond und die Sterne am Himmel." for n in range(40)],
         "Der Mond ist sehr schön und die Sterne leuchten in der Nacht.", {"texts_are_english"}),
    ],
)  # fmt: skip
def test_each_fault_alone_turns_its_check_red(tmp_path: Path, tasks: list[str], response: str, wrong: set[str]) -> None:
    assert red(alpaca_file(tmp_path / "rows.jsonl", tasks, response)) == wrong


def test_a_random_split_of_replayed_rows_leaks(tmp_path: Path) -> None:
    rows = alpaca_file(tmp_path / "rows.jsonl", TASKS * 4)
    assert not no_leakage_between_splits(randomly_split(rows), NO_ITEMS).passed


def test_an_empty_table_has_no_fault(tmp_path: Path) -> None:
    rows = alpaca_file(tmp_path / "rows.jsonl", TASKS).head(0)
    assert red(rows) == set()
