"""Run Great Expectations suites as asset checks: one step for each table, one check for each expectation."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import polars as pl

from checks.sentences import RUN_AGAIN, sentence
from synth_assets.llm.quiet import silence_libraries

if TYPE_CHECKING:
    import pandas as pd

MAX_CHARACTERS = 2_000  # of a text that is checked
MAX_ROWS = 100_000  # ten expectations take 3.4 s on a million rows, 0.3 s on this many
MAX_SHOWN_VALUES = 5
MAX_SHOWN_CHARACTERS = 500
IMPORTED = "Correct these rows in the imported file, then import it again: synth import FILE --replace"
COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


@dataclass(frozen=True)
class Expectation:
    """An expectation of Great Expectations, named after what is true when it passes.

    `type` is its snake_case name without the leading "expect_", `kwargs` are its arguments. A "critical" failure blocks
    downstream assets, a "warning" does not.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    severity: Literal["critical", "warning"] = "critical"
    limit: str = ""  # what is expected, in words; by default the type with its arguments

    def columns(self) -> list[str]:
        """Return the columns in its arguments."""
        return [*(self.kwargs[a] for a in COLUMN_ARGUMENTS if a in self.kwargs), *self.kwargs.get("column_list", ())]

    def describe(self) -> str:
        """Return what is expected, in words, with the share of rows that it is expected of."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.kwargs.items())
        share = self.kwargs.get("mostly", 1.0)
        rows = f" in at least {share:.0%} of the rows" if share < 1 else ""
        limit = self.limit or f"{self.type.replace('_', ' ')}: {arguments}"
        return f"{limit}{rows}"


def present(column: str, name: str, *, severity: Literal["critical", "warning"] = "critical") -> Expectation:
    """Expect that no value of `column` is null."""
    limit = f"{column} is present"
    return Expectation(name, "column_values_to_not_be_null", {"column": column}, severity, limit)


def unique(column: str, name: str) -> Expectation:
    """Expect that no value of `column` occurs twice, ignoring nulls."""
    return Expectation(name, "column_values_to_be_unique", {"column": column}, limit=f"{column} does not repeat")


def one_of(column: str, name: str, values: Sequence[str]) -> Expectation:
    """Expect that every value of `column` is one of `values`, ignoring nulls."""
    limit = f"{column} is {' or '.join(values)}"
    return Expectation(name, "column_values_to_be_in_set", {"column": column, "value_set": list(values)}, limit=limit)


def between(column: str, name: str, low: float | None, high: float | None = None) -> Expectation:
    """Expect that every value of `column` is in [low, high], ignoring nulls."""
    bounds = [f"at least {low:g}"] if low is not None else []
    limit = f"{column} is {' and '.join([*bounds, *([f'at most {high:g}'] if high is not None else [])])}"
    arguments = {"column": column, "min_value": low, "max_value": high}
    return Expectation(name, "column_values_to_be_between", arguments, limit=limit)


def written(column: str, name: str, *, mostly: float = 1.0) -> Expectation:
    """Expect that at least the share `mostly` of the texts in `column` is not blank; below 1 it only warns."""
    arguments = {"column": column, "regex": r"\S", "mostly": mostly}
    severity = "critical" if mostly == 1.0 else "warning"
    return Expectation(name, "column_values_to_match_regex", arguments, severity, f"{column} is not blank")


def expectation_checks(
    asset: str,
    expectations: Sequence[Expectation],
    *,
    row_id: str = "row_id",
    blocking: bool = True,
    partitioned: bool = False,
) -> dg.AssetChecksDefinition:
    """Return the checks of one table as one step; any subset of them can be run.

    Args:
        asset: the table's key.
        expectations: expectations with unique names.
        row_id: column that rows are sampled by if there are more than MAX_ROWS.
        blocking: whether critical expectations block downstream assets.
        partitioned: whether the table has partitions; the run's partition is checked, or all if the run has none.
    """
    specs = [
        dg.AssetCheckSpec(
            e.name,
            asset=asset,
            blocking=blocking and e.severity == "critical",
            description=f"Check that {e.describe()}.",
        )
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
    """Return the run's partition, or all if the run has none, as when a check is run by hand.

    Raises:
        KeyError: the run's partition was never materialised.
    """
    if context.has_partition_key:
        return batches[context.partition_key]
    return pl.concat(batches.values())


def evaluate(
    asset: str, table: pl.LazyFrame, expectations: Sequence[Expectation], *, row_id: str = "row_id"
) -> list[dg.AssetCheckResult]:
    """Return one result for each expectation, in order.

    An expectation with a missing column, or one that raises, fails with the reason in the metadata.
    """
    available = table.collect_schema().names()
    needed = [column for column in available if any(column in e.columns() for e in expectations)]
    sample = sample_rows(table, needed, row_id=row_id)
    evaluable = [e for e in expectations if set(e.columns()) <= set(available)]
    outcomes = _validate(asset, sample, evaluable)
    return [_result(asset, e, outcomes.get(e.name), rows=len(sample), columns=available) for e in expectations]


def sample_rows(table: pl.LazyFrame, columns: Sequence[str], *, row_id: str) -> "pd.DataFrame":
    """Return `columns` of at most MAX_ROWS rows with the lowest id hashes, so that equal ids are sampled together.

    Without the id column, the first rows are returned. Long texts are cut to MAX_CHARACTERS, without leading blanks.
    """
    schema = table.collect_schema()
    if row_id in schema:
        rows = table.select(*columns, pl.col(row_id).hash().alias("_hash")).bottom_k(MAX_ROWS, by="_hash")
    else:
        rows = table.select(*columns).head(MAX_ROWS)
    shown = [_shortened(name) if schema[name] == pl.String else pl.col(name) for name in columns]
    return rows.select(*shown).collect(engine="streaming").to_pandas()


def _shortened(column: str) -> pl.Expr:
    text = pl.col(column)
    cut = text.str.strip_chars_start().str.head(MAX_CHARACTERS)
    return pl.when(text.str.len_chars() > MAX_CHARACTERS).then(cut).otherwise(text).alias(column)


def _validate(asset: str, sample: "pd.DataFrame", expectations: Sequence[Expectation]) -> dict[str, dict[str, Any]]:
    """Return the reports of Great Expectations by expectation name."""
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
        suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_SHOWN_VALUES}
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
        metadata["exception"] = exception[:MAX_SHOWN_CHARACTERS]
    passed = report is not None and bool(report["success"]) and not exception
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=expectation.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR if expectation.severity == "critical" else dg.AssetCheckSeverity.WARN,
        description=sentence(
            exception[:MAX_SHOWN_CHARACTERS] or _found(metadata, rows),
            f"expected: {expectation.describe()}",
            IMPORTED if asset.startswith("imported_") else RUN_AGAIN,
            passed=passed,
        ),
        metadata=metadata,
    )


def _found(evidence: Mapping[str, Any], rows: int) -> str:
    """Return the evidence in words."""
    if "unexpected_count" in evidence:
        return f"{evidence['unexpected_count']:,.0f} of {rows:,} rows are not as expected"
    return f"got {evidence.get('observed_value', 'nothing')}"


def _evidence(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of unexpected rows with some examples, or the observed value."""
    evidence: dict[str, Any] = {}
    for key in ("unexpected_count", "unexpected_percent", "observed_value"):
        value = result.get(key)
        if isinstance(value, int | float):
            evidence[key] = float(value)
        elif value is not None:
            evidence[key] = str(value)[:MAX_SHOWN_CHARACTERS]
    if values := result.get("partial_unexpected_list"):
        evidence["unexpected_values"] = [str(value)[:MAX_SHOWN_CHARACTERS] for value in values]
    return evidence


def _exception(info: Mapping[str, Any]) -> str:
    """Return the message of an expectation's exception, or ""; `info` may nest one for each metric."""
    nested = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    return next((str(entry.get("exception_message")) for entry in nested if entry.get("raised_exception")), "")
