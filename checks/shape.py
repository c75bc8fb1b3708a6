"""Has a set of instructions the shape of tasks: short, varied, whole, in one language, without answers or markers?

The numbers beside the limits were measured on the first rows of three sets: a published Magpie run that did not ban
heading tokens (750 rows), alpaca (500), and the embedded teacher (192).
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
from synth_assets.stages.filtering.features import SIDES, Features, Flags, TokenLimits
from synth_assets.stages.filtering.rules import content, language, markup, truncation
from synth_assets.stages.filtering.spec import FilterSpec

MAX_ROWS = 10_000  # drawn by row id: a share of .02 is then known within .003
MAX_ANSWER_RATE = 0.05  # the published run .91, alpaca and the teacher 0
MAX_CUT_RATE = 0.2  # the published run .61, alpaca .006, the teacher 0
MAX_MARKER_RATE = 0.001  # the published run .004, the others 0
MAX_FOREIGN_RATE = 0.05  # all three 0; the filter drops them, and a larger share is another data set than was asked for
MAX_MEDIAN_WORDS = 100  # the published run 161, alpaca 11, the teacher 7
OPENING_WORDS = 3
MIN_OPENING_BITS = 4.5  # the published run 3.8 (14 openings in effect), alpaca 8.6, the teacher 5.4
MIN_OPENING_SHARE = 0.5  # of the bits that so many rows can have at most; the lower bound for small tables


@dataclass(frozen=True)
class InstructionProfile:
    """One property of a table of instructions.

    Args:
        name: of the check: what is true when it passes.
        says: its description.
        measure: what of the rows.
        limit: of the measured value, for a table of so many rows.
        least: the limit is the smallest value that passes; otherwise the largest.
    """

    name: str
    says: str
    measure: Callable[[Features], float]
    limit: Callable[[int], float]
    least: bool = False

    def judge(self, rows: pl.LazyFrame) -> dg.AssetCheckResult:
        """Whether the table has the property; one without rows has it. A warning: the filter drops single rows."""
        table = rows.bottom_k(MAX_ROWS, by=pl.col("row_id").hash()).collect()
        metadata: dict[str, float | int] = {"rows_checked": table.height}
        passed = True
        if table.height:
            value, limit = self.measure(_features(table)), self.limit(table.height)
            passed = value >= limit if self.least else value <= limit
            metadata |= {"measured": value, "wanted_at_least" if self.least else "wanted_at_most": limit}
        return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


def opening_bits(rows: Features) -> float:
    """Shannon entropy of the first OPENING_WORDS words of the instructions, in bits; 2 to that power is their number.

    Topics that a teacher comes back to again and again begin alike.
    """
    words = normalised(pl.col("text")).str.extract_all(r"\w+").list.head(OPENING_WORDS).list.join(" ")
    openings = pl.DataFrame({"text": rows.text("instruction")}).select(words).to_series()
    shares = openings.value_counts()["count"].to_numpy() / len(openings)
    return float(-(shares * np.log2(shares)).sum())


def _features(table: pl.DataFrame) -> Features:
    """Features of rows whose tokens nobody counts here."""
    return Features(table, FilterSpec(), TokenLimits(lambda texts: [0] * len(texts), 0))


def _rate(flags: Flags) -> float:
    return float(np.mean(flags))


def _answers(rows: Features) -> float:
    return _rate((content.carries_solution(rows) > 0) | (content.is_an_answer(rows) > 0))


def _cut(rows: Features) -> float:
    """Share of rows of which either side looks cut off, where nobody recorded why it ended."""
    return _rate(np.logical_or(*(truncation.looks_cut_off(rows, side) > 0 for side in SIDES)))


def _markers(rows: Features) -> float:
    marked = markup.control_marks_asked(rows) > 0
    return _rate(marked | (rows.matches("response", markup.CONTROL_MARK) > 0))


def _foreign(rows: Features) -> float:
    probability = np.nan_to_num(language.foreign_probability(rows))
    return _rate(probability > rows.spec.max_foreign_probability)


def _opening_limit(rows: int) -> float:
    return min(MIN_OPENING_BITS, MIN_OPENING_SHARE * math.log2(rows))


SHAPES = (
    InstructionProfile(
        "instructions_ask",
        "Few instructions are answers or carry a worked solution, as those of a teacher whose headings nobody banned.",
        _answers,
        lambda _: MAX_ANSWER_RATE,
    ),
    InstructionProfile(
        "texts_are_whole",
        "Few texts of which nobody recorded why they ended stop in the middle of something.",
        _cut,
        lambda _: MAX_CUT_RATE,
    ),
    InstructionProfile(
        "no_control_tokens_leak",
        "Next to no text holds tokens of a chat template: more means that a decoder or a parser is wrong.",
        _markers,
        lambda _: MAX_MARKER_RATE,
    ),
    InstructionProfile(
        "texts_are_english",
        "Few rows are in another language; formulas, code, names and translations asked for are not.",
        _foreign,
        lambda _: MAX_FOREIGN_RATE,
    ),
    InstructionProfile(
        "instructions_are_short",
        "The median instruction has the length of a task, not of an essay.",
        lambda rows: float(np.median(rows.word_counts("instruction"))),
        lambda _: MAX_MEDIAN_WORDS,
    ),
    InstructionProfile(
        "topics_vary",
        "Instructions begin in many ways: the entropy of their first words tells a teacher that repeats its topics.",
        opening_bits,
        _opening_limit,
        least=True,
    ),
)


def batch_shape_checks() -> tuple[Check, ...]:
    """A check of each shape for the batch of raw instructions that a run made, whose finish reasons are known."""
    return tuple(_of_batch(shape) for shape in SHAPES if shape.name != "texts_are_whole")


def import_shape_checks() -> tuple[Check, ...]:
    """The same for what users brought."""
    return tuple(_of_imports(shape) for shape in SHAPES)


def _of_batch(shape: InstructionProfile) -> Check:
    def check(context: dg.AssetCheckExecutionContext, raw_instructions: dict[str, pl.LazyFrame]) -> dg.AssetCheckResult:
        return shape.judge(of_this_run(context, raw_instructions))

    return _named(check, shape)


def _of_imports(shape: InstructionProfile) -> Check:
    def check(imported_instructions: pl.LazyFrame) -> dg.AssetCheckResult:
        return shape.judge(imported_instructions)

    return _named(check, shape)


def _named(check: Check, shape: InstructionProfile) -> Check:
    check.__name__, check.__doc__ = shape.name, shape.says
    return check
