"""Fault 23: a step exits with its worker, a killed step is restarted once, and a killed run is cleaned up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import psutil
import pytest

from resources.dagster_private import RunFailureReason, monitor_runs_once
from resources.deployment import write_instance_settings
from resources.hardware import GPU_POOL
from resources.run_processes import PROCESS_TAG, close_dead_runs
from synth_assets.cli.run import run_tags
from synth_assets.cli.watch import is_interruption

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).with_name("deaths.py")
START_S = 120
EXIT_TIMEOUT_S = 5
STOP_TIMEOUT_S = 60


def start(how: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, PROGRAM, how], stderr=subprocess.PIPE, text=True, process_group=0)


def attempts(home: Path) -> list[int]:
    file = home / "attempts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_exited(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def test_a_step_exits_with_its_worker(own_home: Path) -> None:
    with start("wait") as worker:
        wait_until(lambda: len(attempts(own_home)) == 1, START_S)
        (step,) = attempts(own_home)
        family = [step, *(child.pid for child in psutil.Process(worker.pid).children(recursive=True))]
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: has_exited(step), EXIT_TIMEOUT_S)
        wait_until(lambda: all(map(has_exited, family)), EXIT_TIMEOUT_S)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_stops_the_run(own_home: Path, sent: signal.Signals) -> None:
    """Ctrl-C in a terminal and `timeout` signal the whole group; the worker must not wait for a dead step."""
    with start("wait") as worker:
        wait_until(lambda: len(attempts(own_home)) == 1, START_S)
        family = [child.pid for child in psutil.Process(worker.pid).children(recursive=True)]
        os.killpg(worker.pid, sent)
        error = worker.communicate(timeout=STOP_TIMEOUT_S)[1]
        assert worker.returncode == 1, error
        wait_until(lambda: all(map(has_exited, family)), EXIT_TIMEOUT_S)
    with dg.DagsterInstance.get() as instance:
        assert any(is_interruption(entry.get_dagster_event()) for entry in failures(instance))


@pytest.mark.parametrize("after_s", [0.0, 0.2])
def test_ctrl_c_during_the_imports_prints_no_traceback(own_home: Path, after_s: float) -> None:
    with start("wait") as worker:
        wait_until(lambda: fork_servers(worker.pid) != [], START_S)
        time.sleep(after_s)
        os.killpg(worker.pid, signal.SIGINT)
        error = worker.communicate(timeout=STOP_TIMEOUT_S)[1]
    assert worker.returncode == 1, error
    assert "KeyboardInterrupt" not in error
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_run_records()
        failures_of_run = instance.all_logs(run.dagster_run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert [event.get_dagster_event().job_failure_data.failure_reason for event in failures_of_run] == [
        RunFailureReason.UNEXPECTED_TERMINATION
    ]


def fork_servers(worker: int) -> list[int]:
    """Return the ids of the fork server processes of a worker, once they run Python."""
    pids = []
    for child in psutil.Process(worker).children():
        try:
            pids += [child.pid] if any("forkserver" in word for word in child.cmdline()) else []
        except psutil.Error:  # it has just exited
            continue
    return pids


def failures(instance: dg.DagsterInstance) -> Sequence[dg.EventLogEntry]:
    (run,) = instance.get_runs()
    return instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)


def test_the_slot_of_a_killed_run_is_free_for_the_next(own_home: Path) -> None:
    with start("wait") as worker:
        wait_until(lambda: len(attempts(own_home)) == 1, START_S)
        os.kill(worker.pid, signal.SIGKILL)
    with dg.DagsterInstance.get() as instance:
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_slot_count == 1
    with start("live") as worker:
        error = worker.communicate(timeout=START_S)[1]
    assert worker.returncode == 0, error
    with dg.DagsterInstance.get() as instance:
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_slot_count == 0


@pytest.mark.parametrize(
    ("how", "times", "code"),
    [
        ("die_once", 2, 0),  # the second attempt succeeds, and the next step runs
        ("die", 2, 1),
        ("raise", 1, 1),  # a second attempt would fail too
    ],
)
def test_only_a_killed_step_is_restarted(own_home: Path, how: str, times: int, code: int) -> None:
    with start(how) as worker:
        error = worker.communicate(timeout=START_S)[1]
    assert (worker.returncode, len(attempts(own_home))) == (code, times), error
    assert (own_home / "after").exists() == (code == 0)


def test_two_runs_can_start_in_a_new_home_at_once(own_home: Path) -> None:  # fault 22
    with start("live") as first, start("live") as second:
        errors = [run.communicate(timeout=START_S)[1] for run in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], errors
    assert len(attempts(own_home)) == 2


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_only_runs_whose_process_has_exited_are_closed(status: dg.DagsterRunStatus) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as exited:
        exited.wait()
    current_tags = run_tags("b", "cpu")
    machine, pid, started = json.loads(current_tags[PROCESS_TAG])
    owners = {
        "this process": [machine, pid, started],
        "an ended process": [machine, exited.pid, started],
        "a reused process id": [machine, pid, started - 60],
        "another machine": ["elsewhere", exited.pid, started],
    }
    with dg.instance_for_test() as instance:
        for name, owner in owners.items():
            tags = {**current_tags, PROCESS_TAG: json.dumps(owner), "name": name}
            instance.add_run(dg.DagsterRun("pipeline", tags=tags, status=status))
        instance.add_run(dg.DagsterRun("pipeline", tags={"name": "no process"}, status=status))
        assert close_dead_runs(instance) == 2
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert {run.tags["name"] for run in failed} == {"an ended process", "a reused process id"}
        assert close_dead_runs(instance) == 0


def test_run_monitoring_closes_a_run_whose_process_has_exited(own_home: Path) -> None:
    """Run the check that the daemon runs every ten seconds, with the launcher of dagster.yaml."""
    write_instance_settings(own_home)
    with subprocess.Popen([sys.executable, "-c", ""]) as exited:
        exited.wait()
    machine, _, started = json.loads(run_tags("b", "cpu")[PROCESS_TAG])
    with dg.DagsterInstance.get() as instance:
        for pid in (exited.pid, os.getpid()):
            tags = {PROCESS_TAG: json.dumps([machine, pid, started])}
            instance.add_run(dg.DagsterRun("pipeline", tags=tags, status=dg.DagsterRunStatus.STARTED))
        monitor_runs_once(instance)
        statuses = {json.loads(run.tags[PROCESS_TAG])[1]: run.status for run in instance.get_runs()}
    assert statuses == {exited.pid: dg.DagsterRunStatus.FAILURE, os.getpid(): dg.DagsterRunStatus.STARTED}
