"""One-line texts of step errors: the message of the project's own code is selected from the chain of causes."""

import errno
import json

import dagster as dg
import polars as pl
import pytest
from dagster_shared.error import SerializableErrorInfo

from synth_assets.orchestration.failures import failure_text, is_no_space, one_line
from synth_assets.record_files.records import RecordFileError
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.serialization import from_json
from synth_assets.storage.atomic import write_atomically
from synth_assets.storage.errors import StorageError
from synth_assets.training.errors import TrainingError


def wrapped() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        raise RecordFileError("rows.jsonl line 3: not JSON. Remove the line") from error


def wrapped_twice() -> None:
    try:
        wrapped()
    except RecordFileError as error:
        raise TrainingError("no row of rows.jsonl is left: import it again") from error


def during_another() -> None:
    try:
        json.loads("{")
    except ValueError:
        raise StorageError("tables/x.json is damaged: delete it, and run again")  # noqa: B904 - without a cause on purpose


def of_a_library() -> None:
    pl.DataFrame({"a": [1]}).select("b")


def of_a_library_twice() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        raise KeyError("outer") from error


def bare() -> None:
    from_json(ModelRecord, "{")


def failed(function: object) -> SerializableErrorInfo:
    """Return the error in the failure event of a step, wrapped in Dagster's own error."""

    @dg.op(name="step")
    def step() -> None:
        function()  # pyright: ignore[reportCallIssue]

    @dg.job
    def job() -> None:
        step()

    result = job.execute_in_process(raise_on_error=False)
    error = result.failure_data_for_node("step").error
    assert "DagsterExecutionStepExecutionError" in error.message
    return error


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (wrapped, "rows.jsonl line 3: not JSON. Remove the line"),
        (wrapped_twice, "no row of rows.jsonl is left: import it again"),
        (during_another, "tables/x.json is damaged: delete it, and run again"),
    ],
)
def test_the_outermost_project_error_is_shown(function: object, expected: str) -> None:
    assert failure_text(failed(function)) == expected


def test_without_a_project_error_the_outermost_library_error_is_shown_with_its_type() -> None:
    text = failure_text(failed(of_a_library))
    assert "ColumnNotFoundError" in text
    assert "\n" not in text
    assert failure_text(failed(of_a_library_twice)) == "KeyError: 'outer'"


def test_an_error_raised_in_project_code_counts_as_a_project_error() -> None:
    assert "Dagster" not in failure_text(failed(bare))


def test_a_full_disk_names_the_file(tmp_path: object) -> None:
    def full() -> None:
        def write(_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        write_atomically(tmp_path / "t.parquet", write)  # pyright: ignore[reportOperatorIssue]

    text = failure_text(failed(full))
    assert "No space left on device" in text
    assert "t.parquet" in text


def test_missing_long_and_unprintable_errors_give_one_line() -> None:
    assert failure_text(None) == "no error was recorded"
    assert one_line("a\n b\x1b[31m\tc") == "a b\N{REPLACEMENT CHARACTER}[31m c"
    assert len(one_line("x" * 5_000)) == 1_000


def test_a_full_disk_is_found_in_the_chain_of_causes() -> None:
    cause = OSError(errno.ENOSPC, "No space left on device")
    outer = ValueError("outer")
    outer.__cause__ = cause
    assert is_no_space(outer)
    assert not is_no_space(ValueError("x"))
    assert is_no_space(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
