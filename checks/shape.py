"""Checks on the profile of a set of instructions: short, varied, complete, in English, without answers or markers.

The numbers beside the limits were measured on the first rows of three sets: a Magpie run without banned heading tokens
(750 rows), Alpaca (500), and the embedded teacher (192).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg
import numpy as np
import polars as pl

from checks.great_expectations import of_this_run
from checks.grouping import Check
from checks.leakage import normalised
from checks.sentences import sentence
from synth_assets.stages.filtering.features import SIDES, Features, Flags
from synth_assets.stages.filtering.rules import content, language, markup, truncation
from synth_assets.stages.filtering.spec import FilterSpec
from synth_assets.text.token_limits import TokenLimits

MAX_BYTES = 64_000_000  # of text in the sample: very long rows make it smaller
MAX_ROWS = 10_000  # sampled by row id: the 95 % interval of a share of .02 is then .02 ± .003
MAX_ANSWER_RATE = 0.05  # Magpie .91, Alpaca and the teacher 0
MAX_CUT_RATE = 0.2  # Magpie .61, Alpaca .006, the teacher 0
MAX_MARKER_RATE = 0.001  # Magpie .004, the others 0
MAX_FOREIGN_RATE = 0.05  # all three 0; the filter drops such rows, but a larger share means the wrong data set
MAX_MEDIAN_WORDS = 100  # Magpie 161, Alpaca 11, the teacher 7
OPENING_WORDS = 3
MIN_OPENING_BITS = 4.5  # Magpie 3.8 (14 effective openings), Alpaca 8.6, the teacher 5.4
MIN_OPENING_SHARE = 0.5  # of the maximum entropy of that many rows; the lower bound for small tables


@dataclass(frozen=True)
class InstructionProfile:
    """One property of a table of instructions.

    Args:
        name: name of the check: what is true when it passes.
        description: description of the check.
        measure: returns the value of the rows.
        limit: returns the limit for a number of rows.
        least: whether the limit is the smallest value that passes; otherwise it is the largest.
    """

    name: str
    description: str
    measure: Callable[[Features], float]
    limit: Callable[[int], float]
    least: bool = False

    def check_rows(self, rows: pl.LazyFrame) -> dg.AssetCheckResult:
        """Return whether the table has the property; an empty table passes. Only a warning: the filter drops rows."""
        table = sample_rows(rows)
        metadata: dict[str, float | int] = {"rows_checked": table.height}
        passed, description = True, "No rows to measure."
        if table.height:
            value, limit = self.measure(_features(table)), self.limit(table.height)
            passed = value >= limit if self.least else value <= limit
            bound = f"at {'least' if self.least else 'most'} {limit:.3g} expected"
            found = f"{self.name}: measured {value:.3g} on {table.height:,} rows"
            remedy = "The filter drops such rows. If there are many, look at the rows and at their source"
            description = sentence(found, bound, remedy, passed=passed)
            metadata |= {"measured": value, "wanted_at_least" if self.least else "wanted_at_most": limit}
        return dg.AssetCheckResult(
            passed=passed, severity=dg.AssetCheckSeverity.WARN, description=description, metadata=metadata
        )


def sample_rows(rows: pl.LazyFrame) -> pl.DataFrame:
    """Return the MAX_ROWS rows with the lowest id hashes, fewer if their texts exceed MAX_BYTES."""
    size = sum(pl.col(side).str.len_bytes().fill_null(0) for side in SIDES)
    ids = rows.select("row_id", size=size, order=pl.col("row_id").hash()).collect(engine="streaming")
    lowest = ids.bottom_k(MAX_ROWS, by="order").sort("order")
    fitting = lowest.filter((pl.col("size").cum_sum() - pl.col("size")) < MAX_BYTES)["row_id"]
    return rows.filter(pl.col("row_id").is_in(fitting.implode())).collect(engine="streaming")


def opening_bits(rows: Features) -> float:
    """Return the Shannon entropy of the instructions' first OPENING_WORDS words, in bits.

    Two to that power is the effective number of openings. Instructions of a repeated topic share their opening.
    """
    words = normalised(pl.col("text")).str.extract_all(r"\w+").list.head(OPENING_WORDS).list.join(" ")
    openings = pl.DataFrame({"text": rows.text("instruction")}).select(words).to_series()
    shares = openings.value_counts()["count"].to_numpy() / len(openings)
    return float(-(shares * np.log2(shares)).sum())


def _features(table: pl.DataFrame) -> Features:
    """Return features of the rows; tokens are not counted."""
    return Features(table, FilterSpec(), TokenLimits(lambda texts: [0] * len(texts), 0))


def _rate(flags: Flags) -> float:
    return float(np.mean(flags))


def _answer_rate(rows: Features) -> float:
    return _rate((content.carries_solution(rows) > 0) | (content.is_an_answer(rows) > 0))


def _truncated_rate(rows: Features) -> float:
    """Return the share of rows of unknown finish reason of which either side looks truncated."""
    return _rate(np.logical_or(*(truncation.looks_cut_off(rows, side) > 0 for side in SIDES)))


def _marker_rate(rows: Features) -> float:
    marked = markup.instruction_control_marks(rows) > 0
    return _rate(marked | (rows.matches("response", markup.CONTROL_MARK) > 0))


def _foreign_rate(rows: Features) -> float:
    probability = np.nan_to_num(language.foreign_probability(rows))
    return _rate(probability > rows.spec.max_foreign_probability)


def _opening_limit(rows: int) -> float:
    return min(MIN_OPENING_BITS, MIN_OPENING_SHARE * math.log2(rows))


PROFILES = (
    InstructionProfile(
        "instructions_ask",
        "Check that few instructions are answers or contain a worked solution, as happens without banned headings.",
        _answer_rate,
        lambda _: MAX_ANSWER_RATE,
    ),
    InstructionProfile(
        "texts_are_whole",
        "Check that few texts of unknown finish reason look truncated.",
        _truncated_rate,
        lambda _: MAX_CUT_RATE,
    ),
    InstructionProfile(
        "no_control_tokens_leak",
        "Check that almost no text has tokens of a chat template: they indicate a wrong decoder or parser.",
        _marker_rate,
        lambda _: MAX_MARKER_RATE,
    ),
    InstructionProfile(
        "texts_are_english",
        "Check that few rows are in another language; formulas, code, names and requested translations do not count.",
        _foreign_rate,
        lambda _: MAX_FOREIGN_RATE,
    ),
    InstructionProfile(
        "instructions_are_short",
        "Check that the median instruction has the length of a task, not of an essay.",
        lambda rows: float(np.median(rows.word_counts("instruction"))),
        lambda _: MAX_MEDIAN_WORDS,
    ),
    InstructionProfile(
        "topics_vary",
        "Check that instructions begin in many ways: a low entropy of their first words indicates repeated topics.",
        opening_bits,
        _opening_limit,
        least=True,
    ),
)


def batch_shape_checks() -> tuple[Check, ...]:
    """Return a check of each profile for the run's batch of raw instructions, whose finish reasons are known."""
    return tuple(_of_batch(profile) for profile in PROFILES if profile.name != "texts_are_whole")


def import_shape_checks() -> tuple[Check, ...]:
    """Return a check of each profile for imported instructions."""
    return tuple(_of_imports(profile) for profile in PROFILES)


def _of_batch(profile: InstructionProfile) -> Check:
    def check(context: dg.AssetCheckExecutionContext, raw_instructions: dict[str, pl.LazyFrame]) -> dg.AssetCheckResult:
        return profile.check_rows(of_this_run(context, raw_instructions))

    return _named(check, profile)


def _of_imports(profile: InstructionProfile) -> Check:
    def check(imported_instructions: pl.LazyFrame) -> dg.AssetCheckResult:
        return profile.check_rows(imported_instructions)

    return _named(check, profile)


def _named(check: Check, profile: InstructionProfile) -> Check:
    check.__name__, check.__doc__ = profile.name, profile.description
    return check
