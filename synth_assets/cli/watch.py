"""Follow the events of a run: results and failures as lines, progress for the moving line, everything in the log."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any, TextIO

import dagster as dg
from dagster import DagsterEventType, EventLogEntry
from sqlalchemy.exc import SQLAlchemyError

from synth_assets.cli.run_display import RunDisplay
from synth_assets.cli.run_progress import Forecast, RunProgress, is_progress
from synth_assets.orchestration.failures import FAILED, failure_text

POLL_S = 0.5
MAX_SHOWN_VALUES = 3
SKIPPED_MESSAGES = ("Dependencies for step ", FAILED)
"""Beginnings of log messages that are not printed: skipped steps, and failures, which have an event of their own."""
TEXT_KEYS = ("failure", "outcome", "action", "candidate", "reason")  # metadata to print instead of numbers
FAILED_CHECK = "DagsterAssetCheckFailedError"  # raised by Dagster after a blocking check failed
LOST_EVENT = "Exception while writing logger call to event log"


class EventErrorFilter:
    """A stream that drops Dagster's message about an event that could not be stored. The error itself follows."""

    def __init__(self, stream: TextIO) -> None:
        """Write everything else to `stream`."""
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text unless it is such a message."""
        return len(text) if text.startswith(LOST_EVENT) else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the stream
        """Return an attribute of the stream."""
        return getattr(self.stream, name)


@contextmanager
def quiet_event_errors() -> Iterator[None]:
    """Hide Dagster's messages about events that could not be stored."""
    with redirect_stderr(EventErrorFilter(sys.stderr)):  # pyright: ignore[reportArgumentType]
        yield


class RunWatcher(threading.Thread):
    """Thread that follows the run with the tag `synth/launch`=token and shows it on a display."""

    def __init__(self, instance: dg.DagsterInstance, token: str, display: RunDisplay, forecast: Forecast) -> None:
        """Show the run on `display` between `start` and `finish`."""
        super().__init__(daemon=True)
        self.instance, self.token, self.display = instance, token, display
        self.started = time.time()
        self.progress = RunProgress(forecast, self.started)
        self._cursor: str | None = None
        self._finished = threading.Event()

    def run(self) -> None:
        """Poll until `finish` is called or the event log is not readable, which the run itself reports."""
        with suppress(OSError, SQLAlchemyError):
            while not self._finished.wait(POLL_S):
                self._drain()
                now = time.time()
                self.display.progress(lambda at=now: self.progress.line(at), now - self.started)

    def finish(self) -> None:
        """Show the remaining events and wait for the thread."""
        self._finished.set()
        self.join()
        with suppress(OSError, SQLAlchemyError):
            self._drain()

    def _drain(self) -> None:
        runs = self.instance.get_runs(dg.RunsFilter(tags={"synth/launch": self.token}), limit=1)
        if not runs:
            return
        connection = self.instance.get_records_for_run(runs[0].run_id, cursor=self._cursor)
        self._cursor = connection.cursor
        for record in connection.records:
            entry = record.event_log_entry
            self.progress.add(entry)
            if line := describe(entry):
                show = self.display.detail if _is_progress(entry) else self.display.result
                show(f"{time.time() - self.started:5.0f} s  {line}")


def _is_progress(entry: EventLogEntry) -> bool:
    return entry.dagster_event is None and is_progress(entry.user_message)


def is_interruption(event: dg.DagsterEvent) -> bool:
    """Return True if a step failed because its run was interrupted."""
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def describe(entry: EventLogEntry) -> str | None:
    """Return the line for an event, None for events that are not printed."""
    name = (entry.step_key or "run").removesuffix("_expectations")
    if entry.dagster_event is None:
        return _message(entry, name)
    event = entry.dagster_event
    match event.event_type:
        case DagsterEventType.STEP_FAILURE:
            return _failure(event, name)
        case DagsterEventType.ASSET_MATERIALIZATION:
            materialisation = event.step_materialization_data.materialization
            return f"{materialisation.asset_key.to_user_string():28.28} done: {_metadata(materialisation) or 'ok'}"
        case DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if evaluation.passed:
                return None
            asset = evaluation.asset_key.to_user_string()
            found = f": {' '.join(evaluation.description.split())}" if evaluation.description else ""
            return f"{asset:28.28} check failed ({evaluation.severity.value}): {evaluation.check_name}{found}"
    return None


def _failure(event: dg.DagsterEvent, name: str) -> str | None:
    """Return the line for a failed step; None for a failed check, whose evaluation has a line of its own."""
    error = event.step_failure_data.error
    if error is not None and error.cls_name == FAILED_CHECK:
        return None
    return f"{name:28.28} {'stopped' if is_interruption(event) else f'FAILED {failure_text(error)}'}"


def _message(entry: EventLogEntry, name: str) -> str | None:
    if int(entry.level) < logging.INFO or entry.user_message.startswith(SKIPPED_MESSAGES):
        return None
    text = "; ".join(" ".join(line.split()) for line in entry.user_message.removeprefix(f"{name}: ").splitlines())
    return f"{name:28.28} {text}"


def _metadata(materialisation: dg.AssetMaterialization) -> str:
    values = {key: value.value for key, value in materialisation.metadata.items()}
    texts = [str(values[key]) for key in TEXT_KEYS if values.get(key)]
    numbers = [
        f"{key.removeprefix('dagster/').replace('_', ' ')} {_short(value)}"
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join((texts or numbers)[:MAX_SHOWN_VALUES])


def _short(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.3g}"
