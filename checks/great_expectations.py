"""Great Expectations suites as asset checks: one step for each table, one check for each expectation."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import polars as pl

from synth_assets.llm.quiet import silence_libraries

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 100_000  # ten expectations take 3.4 s on a million rows, 0.3 s on this many
SHOWN_VALUES = 5
SHOWN_CHARACTERS = 500
COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


@dataclass(frozen=True)
class Expectation:
    """One expectation of Great Expectations, under the name of what is true when it passes.

    `type` is its snake_case name without the leading "expect_"; `kwargs` are its own arguments. A "critical" one
    stops what reads the table, a "warning" does not.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    severity: Literal["critical", "warning"] = "critical"

    def columns(self) -> list[str]:
        """The columns that its arguments name."""
        return [*(self.kwargs[a] for a in COLUMN_ARGUMENTS if a in self.kwargs), *self.kwargs.get("column_list", ())]

    def describe(self) -> str:
        """The expectation as a sentence: its type, then its arguments."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items())
        return f"expect {self.type.replace('_', ' ')}: {arguments}"


def present(column: str, name: str, *, severity: Literal["critical", "warning"] = "critical") -> Expectation:
    """No value of `column` is null."""
    return Expectation(name, "column_values_to_not_be_null", {"column": column}, severity)


def unique(column: str, name: str) -> Expectation:
    """No value of `column` occurs twice; nulls aside."""
    return Expectation(name, "column_values_to_be_unique", {"column": column})


def one_of(column: str, name: str, values: Sequence[str]) -> Expectation:
    """Every value of `column` is one of `values`; nulls aside."""
    return Expectation(name, "column_values_to_be_in_set", {"column": column, "value_set": list(values)})


def between(column: str, name: str, low: float | None, high: float | None = None) -> Expectation:
    """Every value of `column` is in [low, high]; nulls aside."""
    return Expectation(name, "column_values_to_be_between", {"column": column, "min_value": low, "max_value": high})


def written(column: str, name: str, *, mostly: float = 1.0) -> Expectation:
    """At least the share `mostly` of the texts in `column` hold more than white space; below 1 it only warns."""
    arguments = {"column": column, "regex": r"\S", "mostly": mostly}
    return Expectation(name, "column_values_to_match_regex", arguments, "critical" if mostly == 1.0 else "warning")


def expectation_checks(
    asset: str,
    expectations: Sequence[Expectation],
    *,
    row_id: str = "row_id",
    blocking: bool = True,
    partitioned: bool = False,
) -> dg.AssetChecksDefinition:
    """Checks of one table that run together, as a step of their own; a person may run any subset of them.

    Args:
        asset: the table's key.
        expectations: names are unique within the table.
        row_id: the column by which rows are drawn where there are more than MAX_ROWS.
        blocking: whether critical expectations stop what reads the table.
        partitioned: whether the table has partitions; then the run's own is checked, or all where it has none.
    """
    specs = [
        dg.AssetCheckSpec(e.name, asset=asset, blocking=blocking and e.severity == "critical", description=e.describe())
        for e in expectations
    ]
    decorate = dg.multi_asset_check(
        name=f"{asset}_expectations", specs=specs, can_subset=True, ins={"table": dg.AssetIn(asset)}
    )

    def selected(context: dg.AssetCheckExecutionContext) -> list[Expectation]:
        names = {key.name for key in context.selected_asset_check_keys}
        return [e for e in expectations if e.name in names]

    def of_whole(context: dg.AssetCheckExecutionContext, table: pl.LazyFrame) -> Iterator[dg.AssetCheckResult]:
        yield from evaluate(asset, table, selected(context), row_id=row_id)

    def of_partition(
        context: dg.AssetCheckExecutionContext, table: dict[str, pl.LazyFrame]
    ) -> Iterator[dg.AssetCheckResult]:
        yield from evaluate(asset, of_this_run(context, table), selected(context), row_id=row_id)

    return decorate(of_partition if partitioned else of_whole)


def of_this_run(context: dg.AssetCheckExecutionContext, batches: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """The run's own partition; all of them where the run has none, as when a check is run by hand.

    Raises:
        KeyError: the run's partition was never materialised.
    """
    if context.has_partition_key:
        return batches[context.partition_key]
    return pl.concat(batches.values())


def evaluate(
    asset: str, table: pl.LazyFrame, expectations: Sequence[Expectation], *, row_id: str = "row_id"
) -> list[dg.AssetCheckResult]:
    """One result for each expectation, in their order.

    A column that is not there, and an expectation that raises, fail with the reason in the metadata.
    """
    there = table.collect_schema().names()
    wanted = [column for column in there if any(column in e.columns() for e in expectations)]
    sample = draw(table, wanted, row_id=row_id)
    possible = [e for e in expectations if set(e.columns()) <= set(there)]
    outcomes = _validate(asset, sample, possible)
    return [_result(asset, e, outcomes.get(e.name), rows=len(sample), columns=there) for e in expectations]


def draw(table: pl.LazyFrame, columns: Sequence[str], *, row_id: str) -> "pd.DataFrame":
    """`columns` of at most MAX_ROWS rows: those whose ids hash lowest, so that equal ids are drawn together.

    Where the id column itself is missing the first rows are taken.
    """
    if row_id in table.collect_schema():
        drawn = table.select(*columns, pl.col(row_id).hash().alias("_hash")).bottom_k(MAX_ROWS, by="_hash")
    else:
        drawn = table.select(*columns).head(MAX_ROWS)
    return drawn.select(*columns).collect().to_pandas()


def _validate(asset: str, sample: "pd.DataFrame", expectations: Sequence[Expectation]) -> dict[str, dict[str, Any]]:
    """Outcomes by expectation name, as Great Expectations reports them."""
    if not expectations:
        return {}
    silence_libraries()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 1.24 imports sre_constants
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig
        from great_expectations.expectations.metadata_types import FailureSeverity
        from great_expectations.expectations.registry import get_expectation_impl

    store = gx.get_context(mode="ephemeral")
    store.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(
        name=asset,
        expectations=[
            get_expectation_impl(f"expect_{e.type}")(
                **e.kwargs, severity=FailureSeverity(e.severity), meta={"check": e.name}
            )
            for e in expectations
        ],
    )
    source = store.data_sources.add_pandas(asset).add_dataframe_asset(asset)
    batch = source.add_batch_definition_whole_dataframe(asset).get_batch({"dataframe": sample})
    validation = batch.validate(
        suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": SHOWN_VALUES}
    )
    reports: list[dict[str, Any]] = [dict(outcome.to_json_dict()) for outcome in validation.results]
    return {report["expectation_config"]["meta"]["check"]: report for report in reports}


def _result(
    asset: str, expectation: Expectation, report: Mapping[str, Any] | None, *, rows: int, columns: Sequence[str]
) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"rows_checked": rows}
    if report is None:
        missing = ", ".join(sorted(set(expectation.columns()) - set(columns)))
        exception = f"no column {missing}; there are {', '.join(columns)}"
    else:
        metadata |= _evidence(report["result"])
        exception = _exception(report.get("exception_info") or {})
    if exception:
        metadata["exception"] = exception[:SHOWN_CHARACTERS]
    passed = report is not None and bool(report["success"]) and not exception
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=expectation.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR if expectation.severity == "critical" else dg.AssetCheckSeverity.WARN,
        description=None if passed else exception[:SHOWN_CHARACTERS] or _told(metadata, rows),
        metadata=metadata,
    )


def _told(found: Mapping[str, Any], rows: int) -> str:
    """What was found, as a sentence."""
    if "unexpected_count" in found:
        return f"{found['unexpected_count']:.0f} of {rows} rows are not as expected"
    return f"found {found.get('observed_value', 'nothing')}"


def _evidence(result: Mapping[str, Any]) -> dict[str, Any]:
    """What was found: how many rows were not as expected, some of them, or the observed value."""
    found: dict[str, Any] = {}
    for key in ("unexpected_count", "unexpected_percent", "observed_value"):
        value = result.get(key)
        if isinstance(value, int | float):
            found[key] = float(value)
        elif value is not None:
            found[key] = str(value)[:SHOWN_CHARACTERS]
    if values := result.get("partial_unexpected_list"):
        found["unexpected_values"] = [str(value)[:SHOWN_CHARACTERS] for value in values]
    return found


def _exception(info: Mapping[str, Any]) -> str:
    """The message of the exception that an expectation raised, or nothing; `info` may nest one for each metric."""
    nested = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    return next((str(entry.get("exception_message")) for entry in nested if entry.get("raised_exception")), "")
