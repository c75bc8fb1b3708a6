"""Runs that write the shared tables take turns: one at a time in a home, from a terminal, the UI or a schedule.

Dagster's queue keeps the runs of the daemon apart. The lock here does the same for runs that no daemon starts. The
operating system releases it when the process that holds it ends, however it ends.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterRun
from filelock import FileLock, Timeout

QUEUED = {"synth/queue": "pipeline"}
"""The tag of runs that write the shared tables; docker/dagster.yaml lets the daemon start one of them at a time."""
ASSET_JOB = "__ASSET_JOB"  # what Dagster calls a run of assets that were selected in the UI

POLL_S = 0.5
REMIND_EVERY_S = 60.0


def writes_shared_tables(job: str, tags: Mapping[str, str]) -> bool:
    """Return whether a run has to wait for its turn."""
    return job == ASSET_JOB or QUEUED.items() <= tags.items()


def run_title(run: DagsterRun) -> str:
    """Return how messages name a run: its id, its batch and who started it."""
    batch, trigger = run.tags.get("batch") or run.tags.get("dagster/partition"), run.tags.get("trigger")
    details = [f"batch {batch}" if batch else "", f"started by {trigger}" if trigger else ""]
    return f"run {run.run_id[:8]} ({', '.join([*filter(None, details), f'process {os.getpid()}'])})"


@contextmanager
def run_slot(
    home: Path, name: str, report: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the turn of this home, after waiting for it.

    Args:
        home: SYNTH_HOME.
        name: what holds the turn, for the message of those who wait.
        report: receives a line when the wait begins, and one each minute.
        check: is called while waiting; may raise to end the wait.
    """
    lock, holder = _files(home)
    with _acquired(lock, holder, report, check):
        holder.write_text(name, "utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)


def wait_for_run_slot(home: Path, report: Callable[[str], None]) -> None:
    """Return when no run holds the turn."""
    lock, holder = _files(home)
    with _acquired(lock, holder, report, lambda: None):
        pass


def run_slot_holder(home: Path) -> str | None:
    """Return the name of the run that holds the turn, or None where it is free."""
    lock, holder = _files(home)
    try:
        with lock.acquire(timeout=0):
            return None
    except Timeout:
        return _name(holder)


def _files(home: Path) -> tuple[FileLock, Path]:
    folder = home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "pipeline.lock"), folder / "pipeline.run"


def _name(holder: Path) -> str:
    try:
        return holder.read_text("utf-8") or "another run"
    except OSError:
        return "another run"


@contextmanager
def _acquired(lock: FileLock, holder: Path, report: Callable[[str], None], check: Callable[[], None]) -> Iterator[None]:
    reminded = -REMIND_EVERY_S
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            check()
        if time.monotonic() - reminded >= REMIND_EVERY_S:
            reminded = time.monotonic()
            report(f"waiting for {_name(holder)}, which is writing the same tables; runs go one after another")
        time.sleep(POLL_S)
    try:
        yield
    finally:
        lock.release()
