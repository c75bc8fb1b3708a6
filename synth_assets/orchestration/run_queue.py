"""Run slot: a file lock that lets one run at a time write the shared tables of a home.

Dagster's run queue serialises the runs that the daemon starts; the lock also covers runs from the terminal. The
operating system releases it when the process that holds it exits for any reason.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterRun
from filelock import FileLock, Timeout

QUEUED = {"synth/queue": "pipeline"}
"""Tag of runs that write the shared tables. docker/dagster.yaml limits the daemon to one such run at a time."""
ASSET_JOB = "__ASSET_JOB"  # Dagster's job name for assets selected in the UI

POLL_S = 0.5
REMIND_EVERY_S = 60.0


def writes_shared_tables(job: str, tags: Mapping[str, str]) -> bool:
    """Return True if a run needs the run slot."""
    return job == ASSET_JOB or QUEUED.items() <= tags.items()


def run_title(run: DagsterRun) -> str:
    """Return the name of a run for messages: id, batch, trigger and process."""
    batch, trigger = run.tags.get("batch") or run.tags.get("dagster/partition"), run.tags.get("trigger")
    details = [f"batch {batch}" if batch else "", f"started by {trigger}" if trigger else ""]
    return f"run {run.run_id[:8]} ({', '.join([*filter(None, details), f'process {os.getpid()}'])})"


@contextmanager
def run_slot(
    home: Path, name: str, report: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Wait for the run slot of a home and hold it.

    Args:
        home: SYNTH_HOME.
        name: name of the holder, shown to runs that wait.
        report: receives a line when the wait begins, and one per minute.
        check: called while waiting; may raise to stop waiting.
    """
    lock, holder = _files(home)
    with _acquired(lock, holder, report, check):
        holder.write_text(name, "utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)


def wait_for_run_slot(home: Path, report: Callable[[str], None]) -> None:
    """Wait until no run holds the slot."""
    lock, holder = _files(home)
    with _acquired(lock, holder, report, lambda: None):
        pass


def run_slot_holder(home: Path) -> str | None:
    """Return the name of the run that holds the slot, or None if it is free."""
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
            report(f"waiting for {_name(holder)}, which is writing the same tables")
        time.sleep(POLL_S)
    try:
        yield
    finally:
        lock.release()
