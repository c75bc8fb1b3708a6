"""Shows a run on the terminal while it goes on: one line per thing that happened."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any, TextIO

import dagster as dg
from dagster import DagsterEventType, EventLogEntry
from sqlalchemy.exc import SQLAlchemyError

from synth_assets.orchestration.failures import FAILED, failure_text

POLL_S = 0.5
SHOWN_FACTS = 3
SKIPPED = ("Dependencies for step ", FAILED)
"""Messages without a line of their own: steps that a failure keeps from running, and the failure, which is an event."""
TOLD = ("failure", "outcome", "action", "candidate", "reason")  # metadata in words that says more than numbers


LOST_EVENT = "Exception while writing logger call to event log"


class EventErrorFilter:
    """A stream that leaves out what Dagster prints where an event could not be stored; the error itself follows."""

    def __init__(self, stream: TextIO) -> None:
        """Pass everything else on to `stream`."""
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text, unless it is such a message."""
        return len(text) if text.startswith(LOST_EVENT) else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        """Return everything else of the stream."""
        return getattr(self.stream, name)


@contextmanager
def quiet_event_errors() -> Iterator[None]:
    """Keep Dagster's messages about events that could not be stored off the terminal."""
    with redirect_stderr(EventErrorFilter(sys.stderr)):  # pyright: ignore[reportArgumentType]
        yield


class RunWatcher(threading.Thread):
    """Follows the run that carries the tag `synth/launch`=token and writes its events as lines."""

    def __init__(self, instance: dg.DagsterInstance, token: str, write: Callable[[str], None]) -> None:
        """Nothing is written before `start`; `finish` writes what is left and waits."""
        super().__init__(daemon=True)
        self.instance, self.token, self.write = instance, token, write
        self.started = time.monotonic()
        self._cursor: str | None = None
        self._over = threading.Event()

    def run(self) -> None:
        """Poll until `finish` is called, or until the event log cannot be read, which the run itself reports."""
        with suppress(OSError, SQLAlchemyError):
            while not self._over.wait(POLL_S):
                self._drain()

    def finish(self) -> None:
        """Write the last events and end."""
        self._over.set()
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
            if line := describe(record.event_log_entry):
                self.write(f"{time.monotonic() - self.started:5.0f} s  {line}")


def is_interruption(event: dg.DagsterEvent) -> bool:
    """Whether a step ended because its run was told to stop."""
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def describe(entry: EventLogEntry) -> str | None:
    """The line for one event, or None for what a person need not see."""
    name = (entry.step_key or "run").removesuffix("_expectations")
    if entry.dagster_event is None:
        return _message(entry, name)
    event = entry.dagster_event
    match event.event_type:
        case DagsterEventType.STEP_FAILURE:
            return f"{name:28.28} {'stopped' if is_interruption(event) else _failed(event)}"
        case DagsterEventType.ASSET_MATERIALIZATION:
            materialisation = event.step_materialization_data.materialization
            return f"{materialisation.asset_key.to_user_string():28.28} done: {_facts(materialisation) or 'ok'}"
        case DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if evaluation.passed:
                return None
            asset = evaluation.asset_key.to_user_string()
            return f"{asset:28.28} check failed ({evaluation.severity.value}): {evaluation.check_name}"
    return None


def _failed(event: dg.DagsterEvent) -> str:
    return f"FAILED {failure_text(event.step_failure_data.error)}"


def _message(entry: EventLogEntry, name: str) -> str | None:
    if int(entry.level) < logging.INFO or entry.user_message.startswith(SKIPPED):
        return None
    said = "; ".join(" ".join(line.split()) for line in entry.user_message.removeprefix(f"{name}: ").splitlines())
    return f"{name:28.28} {said}"


def _facts(materialisation: dg.AssetMaterialization) -> str:
    values = {key: value.value for key, value in materialisation.metadata.items()}
    told = [str(values[key]) for key in TOLD if values.get(key)]
    numbers = [
        f"{key.removeprefix('dagster/').replace('_', ' ')} {_short(value)}"
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join((told or numbers)[:SHOWN_FACTS])


def _short(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.3g}"
