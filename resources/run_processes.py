"""Process of a run, recorded in the run's tags, to close runs whose process is gone."""

import json
import platform

import psutil
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

PROCESS_TAG = "synth/process"
UNFINISHED = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
GONE = "the process of the run was killed; run again to continue where it stopped"


def this_process() -> str:
    """Return machine, process id and start time of this process; the start time because ids are reused."""
    process = psutil.Process()
    return json.dumps([platform.node(), process.pid, process.create_time()])


def is_gone(run: DagsterRun) -> bool:
    """Return whether the process of a run has ended; False if it is unknown or on another machine."""
    try:
        machine, number, start = json.loads(run.tags.get(PROCESS_TAG, "null"))
    except (TypeError, ValueError):
        return False
    if machine != platform.node():
        return False
    try:
        return psutil.Process(number).create_time() != start
    except psutil.NoSuchProcess:
        return True


def close_dead_runs(instance: DagsterInstance) -> int:
    """Mark unfinished runs whose process is gone as failed, free their pool slots, and return their number.

    Includes runs that were created and never started. Runs of other machines are left unchanged.
    """
    dead = [run for run in instance.get_runs(RunsFilter(statuses=UNFINISHED)) if is_gone(run)]
    for run in dead:
        instance.report_run_failed(run, GONE)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(dead)
