"""Checks of the stage generation: columns, replayed rows, diversity and profile of batches and imports."""

from typing import get_args

import dagster as dg
import polars as pl

from checks.great_expectations import (
    Expectation,
    between,
    expectation_checks,
    of_this_run,
    one_of,
    present,
    unique,
    written,
)
from checks.grouping import checks_of
from checks.leakage import normalised
from checks.sentences import sentence
from checks.shape import PROFILES, batch_shape_checks, import_shape_checks
from synth_assets.llm.protocols import FinishReason
from synth_assets.schemas.tables import TURN
from synth_assets.stages.filtering.features import SIDES

MIN_DISTINCT_RATE = 0.6  # the embedded teacher reaches .885 at 1,000 samples
REPLAY_ROWS = 6  # at 88 % distinct rows, six consecutive rows repeat by chance in at most one of 10^5 batches
MIN_WRITTEN_RATE = 0.95
MIN_ENDED_RATE = 0.8  # texts truncated at the token limit are dropped later; more of them waste the generation
FINISH_REASONS = get_args(FinishReason)

INSTRUCTION_COLUMNS = (
    present("row_id", "row_ids_are_present"),
    unique("row_id", "row_ids_are_unique"),
    present("source", "sources_are_present"),
    written("instruction", "instructions_are_written", mostly=MIN_WRITTEN_RATE),
    written("response", "responses_are_written", mostly=MIN_WRITTEN_RATE),
)


def _mostly_stop(column: str, name: str) -> Expectation:
    arguments = {"column": column, "value_set": ["stop"], "mostly": MIN_ENDED_RATE}
    return Expectation(name, "column_values_to_be_in_set", arguments, "warning", f"{column} is stop")


raw_instructions_expectations = expectation_checks(
    "raw_instructions",
    (
        *INSTRUCTION_COLUMNS,
        unique("seed", "seeds_are_unique"),
        present("model", "models_are_named"),
        present("revision", "revisions_are_present"),
        between("temperature", "instruction_temperatures_are_in_range", 0, 2),
        between("response_temperature", "response_temperatures_are_in_range", 0, 2),
        between("top_p", "top_p_is_in_range", 0, 1),
        between("instruction_tokens", "instruction_tokens_are_counted", 0),
        between("response_tokens", "response_tokens_are_counted", 0),
        between("history_tokens", "history_tokens_are_counted", 0),
        one_of("instruction_finish_reason", "instruction_finish_reasons_are_known", FINISH_REASONS),
        one_of("response_finish_reason", "response_finish_reasons_are_known", FINISH_REASONS),
        _mostly_stop("instruction_finish_reason", "instructions_end_by_themselves"),
        _mostly_stop("response_finish_reason", "responses_end_by_themselves"),
    ),
    partitioned=True,
)

imported_instructions_expectations = expectation_checks("imported_instructions", INSTRUCTION_COLUMNS)

imported_preferences_expectations = expectation_checks(
    "imported_preferences",
    (
        present("pair_id", "pair_ids_are_present"),
        unique("pair_id", "pair_ids_are_unique"),
        present("source", "sources_are_present"),
        written("instruction", "instructions_are_written", mostly=MIN_WRITTEN_RATE),
        written("chosen", "chosen_responses_are_written", mostly=MIN_WRITTEN_RATE),
        present("rejected", "rejected_responses_are_present"),
    ),
    row_id="pair_id",
)


def no_replayed_rows(
    context: dg.AssetCheckExecutionContext, raw_instructions: dict[str, pl.LazyFrame]
) -> dg.AssetCheckResult:
    """Check that no sequence of rows repeats earlier rows or rows of another batch word for word.

    A generator with the same seed for several blocks or batches produces such rows; single repetitions are normal.
    """
    fresh = of_this_run(context, raw_instructions)
    others = [
        t for batch, t in raw_instructions.items() if context.has_partition_key and batch != context.partition_key
    ]
    replayed = replayed_rows(fresh, others)
    return dg.AssetCheckResult(
        passed=replayed == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_replay(replayed, "Generate the batch again with another seed (raw_instructions.seed)"),
        metadata={"replayed_rows": replayed, "other_batches": len(others)},
    )


def replayed_rows(fresh: pl.LazyFrame, others: list[pl.LazyFrame]) -> int:
    """Count the rows of `fresh` that start a sequence of REPLAY_ROWS rows found earlier or in another table."""
    earlier = [_runs(table).unique() for table in others]
    runs = _runs(fresh).collect()
    replayed = runs.is_duplicated() if runs.height else pl.Series(dtype=pl.Boolean)
    for table in earlier:
        replayed = replayed | runs["run"].is_in(table.collect()["run"].implode())
    return int(replayed.sum() or 0)


def _runs(table: pl.LazyFrame) -> pl.LazyFrame:
    """Return the hash of each sequence of REPLAY_ROWS consecutive texts."""
    hashes = table.select(text=pl.struct("instruction", "response").hash()).collect(engine="streaming").lazy()
    next_texts = [pl.col("text").shift(-i) for i in range(REPLAY_ROWS)]
    runs = hashes.select(
        run=pl.struct(*(f.alias(str(i)) for i, f in enumerate(next_texts))).hash(), row=pl.int_range(pl.len())
    )
    return runs.filter(pl.col("row") <= pl.col("row").max() - (REPLAY_ROWS - 1)).select("run")


def _replay(rows: int, remedy: str) -> str:
    found = f"{rows:,} rows begin a sequence of {REPLAY_ROWS} rows that occurs a second time"
    return sentence(found, "none allowed", remedy, passed=rows == 0)


def instructions_are_diverse(
    context: dg.AssetCheckExecutionContext, raw_instructions: dict[str, pl.LazyFrame]
) -> dg.AssetCheckResult:
    """Check that most instructions of the batch are distinct; only a warning, duplicates are dropped later."""
    return _diversity(of_this_run(context, raw_instructions))


def imports_are_not_replayed(imported_instructions: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that no sequence of imported rows repeats earlier rows, as generators that restart with a seed write."""
    replayed = replayed_rows(imported_instructions, [])
    return dg.AssetCheckResult(
        passed=replayed == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=_replay(replayed, "Look in the program that wrote the file for a seed that is used twice"),
        metadata={"replayed_rows": replayed},
    )


def imports_are_diverse(imported_instructions: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that most imported instructions are distinct; only a warning, duplicates are dropped later."""
    return _diversity(imported_instructions)


def preferences_are_diverse(imported_preferences: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that most imported pairs have distinct instructions; only a warning, duplicates are dropped later."""
    return _diversity(imported_preferences)


def preferences_are_whole(imported_preferences: pl.LazyFrame) -> dg.AssetCheckResult:
    """Check that few imported responses look truncated: otherwise the preferred response is just the complete one."""
    sides = [
        imported_preferences.select("row_id", "instruction", response=side, history=pl.lit([], pl.List(TURN)))
        for side in ("chosen", "rejected")
    ]
    unknown = [pl.lit(None, pl.String).alias(f"{side}_finish_reason") for side in SIDES]
    whole = next(profile for profile in PROFILES if profile.name == "texts_are_whole")
    return whole.check_rows(pl.concat(sides).with_columns(unknown))


def _diversity(table: pl.LazyFrame) -> dg.AssetCheckResult:
    texts = table.select(normalised(pl.col("instruction")).hash()).collect(engine="streaming").to_series()
    rate = texts.n_unique() / len(texts) if len(texts) else 1.0
    return dg.AssetCheckResult(
        passed=rate >= MIN_DISTINCT_RATE,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentence(
            f"{rate:.1%} of {len(texts):,} instructions are distinct",
            f"at least {MIN_DISTINCT_RATE:.0%} expected",
            "Repetitions are dropped later. For fewer of them raise raw_instructions.temperature or vary the topics",
            passed=rate >= MIN_DISTINCT_RATE,
        ),
        metadata={"distinct_rate": rate, "wanted": MIN_DISTINCT_RATE, "rows": len(texts)},
    )


raw_instructions_checks = checks_of(
    "raw_instructions",
    blocking=(no_replayed_rows,),
    watching=(instructions_are_diverse, *batch_shape_checks()),
)

imported_instructions_checks = checks_of(
    "imported_instructions",
    watching=(imports_are_not_replayed, imports_are_diverse, *import_shape_checks()),
)

imported_preferences_checks = checks_of(
    "imported_preferences", watching=(preferences_are_diverse, preferences_are_whole)
)
