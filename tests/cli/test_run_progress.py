"""Progress, log and explanation of runs, with events of small real runs."""

import io

import dagster as dg
import pytest

from synth_assets.cli.failed_checks import stop_text
from synth_assets.cli.run_display import RunDisplay, run_display
from synth_assets.cli.run_progress import Forecast, RunningStep, RunProgress, duration, is_progress
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.cli.watch import RunWatcher, describe


@dg.asset
def rows(context: dg.AssetExecutionContext) -> int:
    context.log.info("answers: 64 of 1,536, 3.5/s, 420 s left")
    return 1


@dg.asset(deps=[rows])
def adapter() -> int:
    return 2


@dg.asset_check(asset=rows, blocking=True)
def enough_rows() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="1 row left, at least 50 required; raise --samples")


def events(instance: dg.DagsterInstance, *definitions: object) -> list[dg.EventLogEntry]:
    result = dg.materialize(list(definitions), instance=instance, raise_on_error=False, tags={"synth/launch": "token"})
    return list(instance.all_logs(result.run_id))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("instructions: 1216 of 1536, 239.9/s, 1 s left", True),
        ("lora_adapter: step 62 of 390, loss 0.332, 6,804 tokens/s, 26 s left", True),
        ("instructions: 0 of 1,536", True),
        ("Rejected 390 of 1,536 rows: benchmark_item 216", False),
        ("instructions: 3 of 5 found in the cache", False),
    ],
)
def test_progress_is_told_from_results(message: str, expected: bool) -> None:
    assert is_progress(message) is expected


def test_a_running_step_shows_its_rate_and_the_time_left_of_the_run(instance: dg.DagsterInstance) -> None:
    entries = events(instance, rows, adapter)
    progress = RunProgress(Forecast(600.0, {"rows": 100.0, "adapter": 200.0}), started=entries[0].timestamp)
    message = next(i for i, entry in enumerate(entries) if is_progress(entry.user_message))
    for entry in entries[: message + 1]:
        progress.add(entry)
    now = entries[message].timestamp
    # rows reports 420 s, more than the 100 s of the earlier run; adapter adds its 200 s
    assert progress.seconds_left(now) == pytest.approx(620.0)
    assert progress.line(now) == "0 of 2 assets, about 10 min left: rows answers 64 of 1,536, 3.5/s"
    for entry in entries[message + 1 :]:
        progress.add(entry)
    assert progress.line(now) == "2 of 2 assets, a few seconds left"


@pytest.mark.parametrize(
    ("forecast", "expected"),
    [
        (Forecast(), None),
        (Forecast(600.0), 590.0),
        (Forecast(600.0, {"rows": 40.0, "adapter": 60.0}, parallel=2.0), 50),
    ],
)
def test_the_time_left_before_the_first_step(
    instance: dg.DagsterInstance, forecast: Forecast, expected: float | None
) -> None:
    entries = events(instance, rows, adapter)
    progress = RunProgress(forecast, started=0.0)
    for entry in entries:
        if entry.dagster_event and entry.dagster_event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            progress.add(entry)
    assert progress.seconds_left(10.0) == expected
    assert progress.line(10.0) == "starting"


def test_a_busy_machine_stretches_the_time_left(instance: dg.DagsterInstance) -> None:
    entries = events(instance, rows, adapter)
    progress = RunProgress(Forecast(20.0, {"rows": 10.0, "adapter": 10.0}), started=0.0)
    for entry in entries:
        progress.add(entry)
    progress.waiting.add("adapter")
    progress.ended_s, progress.expected_s = 30.0, 10.0
    assert progress.seconds_left(0.0) == 30.0  # ten seconds at a third of the speed
    progress.waiting.clear()
    progress.running["adapter"] = RunningStep(started=0.0)
    assert progress.seconds_left(12.0) == 18.0
    assert progress.seconds_left(60.0) == 20.0  # it outlasts 30 s: a third of its time so far is left


@pytest.mark.parametrize(("seconds", "text"), [(89, "89 s"), (90, "2 min"), (5_399, "90 min"), (7_500, "2 h 5 min")])
def test_a_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_results_are_lines_and_progress_is_only_logged(
    instance: dg.DagsterInstance, tmp_path: object
) -> None:
    events(instance, rows, adapter)
    printed, log = io.StringIO(), io.StringIO()
    display = RunDisplay(RedactingConsole(file=printed, width=80, soft_wrap=True), log, None)
    watcher = RunWatcher(instance, "token", display, Forecast())
    watcher.start()
    watcher.finish()
    assert [line.split()[2] for line in printed.getvalue().splitlines()] == ["rows", "adapter"]
    assert "answers: 64 of 1,536, 3.5/s, 420 s left" in log.getvalue()
    display.reported -= 60
    display.progress(lambda: "1 of 2 assets", 65.0)
    display.progress(lambda: "2 of 2 assets", 66.0)  # too early for another line
    assert printed.getvalue().splitlines()[-1] == "   65 s  1 of 2 assets"


def test_a_terminal_gets_one_moving_line_and_the_path_of_the_log(own_home) -> None:  # noqa: ANN001
    printed = io.StringIO()
    console = RedactingConsole(file=printed, width=80, soft_wrap=True, force_terminal=True, highlight=False)
    with run_display(console, own_home) as display:
        display.progress(lambda: "1 of 2 assets, \x1b[31mred https://me:hunter2@host.example", 1.0)
        display.result("    2 s  rows                         FAILED: no rows")
    (path,) = (own_home / "logs").glob("run-*.log")
    output = printed.getvalue()
    assert output.startswith(f"log      {path}\n")
    assert path.read_text("utf-8") == "    2 s  rows                         FAILED: no rows\n"
    assert "FAILED: no rows" in output
    assert "hunter2" not in output
    assert "\x1b[31m" not in output


def test_a_failed_check_is_explained_with_the_command_that_continues(instance: dg.DagsterInstance) -> None:
    entries = events(instance, rows, adapter, enough_rows)
    failed = [line for line in map(describe, entries) if line and ("check failed" in line or "FAILED" in line)]
    assert len(failed) == 1  # the failure of the check's step says nothing more
    assert failed[0].endswith("(ERROR): enough_rows: 1 row left, at least 50 required; raise --samples")
    text = stop_text(instance, entries[0].run_id, "synth run --batch second")
    assert text.splitlines() == [
        "Stopped by a failed check: nothing that depends on the data was computed.",
        "check     enough_rows of rows",
        "found     1 row left, at least 50 required; raise --samples",
        "go on     Make the change, then: synth run --batch second",
    ]


def test_a_run_without_a_failed_check_refers_to_its_failed_steps(instance: dg.DagsterInstance) -> None:
    run_id = events(instance, rows)[0].run_id
    assert stop_text(instance, run_id, "synth run").endswith("Finished work is kept; resume it with: synth run")
    assert stop_text(instance, run_id, "").endswith("Finished work is kept.")
