import subprocess
import sys

import dagster as dg
import polars as pl
import pytest

from checks import great_expectations
from checks.great_expectations import (
    Expectation,
    between,
    evaluate,
    expectation_checks,
    of_this_run,
    one_of,
    present,
    sample_rows,
    unique,
    written,
)

HEAVY = ("great_expectations", "mlflow", "torch", "transformers", "peft", "trl", "datasets", "pandas")


def table(rows: int = 4) -> pl.LazyFrame:
    return pl.LazyFrame({"row_id": [f"r{i}" for i in range(rows)], "share": [i / rows for i in range(rows)]})


def test_each_expectation_gets_its_own_result_in_order() -> None:
    rows = pl.LazyFrame({"row_id": ["a", "b", "b", None], "share": [0.0, 0.5, 2.0, None], "text": ["x", " ", "y", "z"]})
    expectations = [
        between("share", "shares_are_rates", 0, 1),
        unique("row_id", "ids_are_unique"),
        present("row_id", "ids_are_present"),
        one_of("text", "texts_are_known", ["x", "y", "z", " "]),
        written("text", "texts_are_written"),
        written("text", "most_texts_are_written", mostly=0.75),
    ]
    results = evaluate("table", rows, expectations)
    assert [(r.check_name, r.passed) for r in results] == [
        ("shares_are_rates", False),
        ("ids_are_unique", False),
        ("ids_are_present", False),
        ("texts_are_known", True),
        ("texts_are_written", False),
        ("most_texts_are_written", True),  # three of four
    ]
    assert results[0].metadata["unexpected_count"].value == 1.0
    assert results[0].metadata["unexpected_values"].value == ["2.0"]
    found = "1 of 4 rows are not as expected; expected: share is at least 0 and at most 1. "
    assert (results[0].description or "").startswith(found)
    share = "0 of 4 rows are not as expected; expected: text is one of them."
    assert results[3].description == share.replace("one of them", "x or y or z or  ")
    assert "text is not blank in at least 75% of the rows." in (results[5].description or "")
    assert results[0].severity == dg.AssetCheckSeverity.ERROR
    assert results[5].severity == dg.AssetCheckSeverity.WARN


def test_missing_column_fails_and_is_named() -> None:
    missing, other = evaluate("table", table(), [present("answer", "answers_are_present"), present("row_id", "ids")])
    assert not missing.passed
    assert missing.metadata["exception"].value == "no column answer; there are row_id, share"
    assert other.passed


def test_expectation_that_raises_fails_with_its_exception() -> None:
    mean = Expectation("mean_is_low", "column_mean_to_be_between", {"column": "row_id", "min_value": 0, "max_value": 1})
    [result] = evaluate("table", table(), [mean])
    assert not result.passed
    assert "mean" in str(result.metadata["exception"].value)


def test_an_empty_table_passes_row_expectations() -> None:
    results = evaluate("table", table().head(0), [present("row_id", "ids"), between("share", "shares", 0, 1)])
    assert [r.passed for r in results] == [True, True]
    assert results[0].metadata["rows_checked"].value == 0


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate("table", table(), [present("row_id", "ids"), between("share", "shares", 0, 1)])
    assert tuple(capfd.readouterr()) == ("", "")


def test_draws_at_most_so_many_rows_by_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(great_expectations, "MAX_ROWS", 10)
    rows = table(100).collect()
    drawn = set(sample_rows(rows.lazy(), ["row_id"], row_id="row_id")["row_id"])
    shuffled = set(
        sample_rows(rows.sample(fraction=1, shuffle=True, seed=1).lazy(), ["row_id"], row_id="row_id")["row_id"]
    )
    assert len(drawn) == 10
    assert drawn == shuffled
    [result] = evaluate("table", rows.lazy(), [between("share", "shares_are_low", 0, 2)])
    assert result.metadata["rows_checked"].value == 10


def test_draws_rows_of_equal_ids_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(great_expectations, "MAX_ROWS", 10)
    twice = pl.concat([table(100), table(100)])
    drawn = sample_rows(twice, ["row_id"], row_id="row_id")["row_id"]
    assert sorted(drawn.value_counts()) == [2] * 5


def test_reads_only_the_columns_that_are_named() -> None:
    sample = sample_rows(table().with_columns(large=pl.lit("x" * 100)), ["share"], row_id="row_id")
    assert list(sample.columns) == ["share"]


@pytest.mark.parametrize(("severity", "stops"), [("critical", True), ("warning", False)])
def test_only_a_critical_expectation_blocks_downstream_assets(severity: str, stops: bool) -> None:
    @dg.asset
    def rows() -> pl.LazyFrame:
        return pl.LazyFrame({"row_id": ["a", None]})

    @dg.asset
    def model(rows: pl.LazyFrame) -> None:
        """Trained on them."""

    checks = expectation_checks("rows", [present("row_id", "ids_are_present", severity=severity)])  # pyright: ignore[reportArgumentType]
    result = dg.materialize([rows, model, checks], raise_on_error=False)
    assert bool(result.asset_materializations_for_node("model")) is not stops


def test_a_person_may_run_one_check_of_a_table() -> None:
    @dg.asset
    def rows() -> pl.LazyFrame:
        return table()

    checks = expectation_checks("rows", [present("row_id", "ids"), between("share", "shares", 0, 1)])
    key = dg.AssetCheckKey(dg.AssetKey("rows"), "shares")
    wanted = dg.AssetSelection.assets("rows").without_checks() | dg.AssetSelection.checks(key)
    result = dg.materialize([rows, checks], selection=wanted)
    assert [e.check_name for e in result.get_asset_check_evaluations()] == ["shares"]


def test_a_partitioned_run_checks_its_partition_and_other_runs_all() -> None:
    batches = {"first": table(2), "second": table(3)}
    assert of_this_run(_Run("second"), batches).collect().height == 3  # pyright: ignore[reportArgumentType]
    assert of_this_run(_Run(None), batches).collect().height == 5  # pyright: ignore[reportArgumentType]


class _Run:
    def __init__(self, partition_key: str | None) -> None:
        self.partition_key, self.has_partition_key = partition_key, partition_key is not None


def test_loading_all_checks_imports_no_heavy_library() -> None:
    program = f"""
import sys, checks, dagster
dagster.load_asset_checks_from_package_module(checks)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
