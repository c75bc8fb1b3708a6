"""Execute a job in this process and follow it on the terminal."""

import shlex
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from resources.dagster_private import CodeLocation, RunFailureReason, execute_listed
from synth_assets.cli.costs import run_costs_text
from synth_assets.cli.failed_checks import stop_text
from synth_assets.cli.run_display import run_display
from synth_assets.cli.run_progress import Forecast
from synth_assets.cli.session import Session
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.cli.watch import RunWatcher, quiet_event_errors

LOCATION = CodeLocation("synth_assets", "synth_assets.definitions")
"""The code location of workspace.yaml and docker/workspace.yaml."""
NOT_RETRIED = {"dagster/max_retries": "0"}
"""Tag of runs that a command executes: the daemon must not start them a second time if the command is killed."""


class StoppedError(Exception):
    """A signal stopped the run; the message says how to resume it."""


@dataclass(frozen=True)
class JobRun:
    """A run of a job.

    Attributes:
        make_job: function that returns the job; step processes import it by name.
        config: Dagster's run config.
        tags: tags of the run.
        selection: assets to run; None for all of the job.
        forecast: expected duration, for the time left.
        resume: the command that continues the run, shown if a check stops it.
    """

    make_job: Callable[[], dg.JobDefinition]
    config: Mapping[str, Any]
    tags: Mapping[str, str]
    selection: Sequence[dg.AssetKey] | None = None
    forecast: Forecast = field(default_factory=Forecast)
    resume: Sequence[str] = ()


def execute(session: Session, run: JobRun, console: RedactingConsole) -> bool:
    """Execute a run and print its progress and its cost; return True if every step succeeded.

    Raises:
        StoppedError: Ctrl-C or SIGTERM stopped the steps.
    """
    token = uuid.uuid4().hex
    with run_display(console, session.home) as display:
        watcher = RunWatcher(session.instance, token, display, run.forecast)
        watcher.start()
        try:
            with quiet_event_errors():
                result = execute_listed(
                    dg.reconstructable(run.make_job),
                    session.instance,
                    LOCATION,
                    run_config={**run.config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    tags={**NOT_RETRIED, **run.tags, "synth/launch": token},
                    asset_selection=run.selection,
                )
        finally:
            watcher.finish()
    if costs := run_costs_text(session.instance, result.run_id, session.tier.usd_per_hour):
        console.print(costs)
    if any(_was_stopped(event) for event in result.all_events):
        raise StoppedError("Stopped. Finished work is kept: run again to resume.")
    if not result.success:
        console.print(stop_text(session.instance, result.run_id, shlex.join(run.resume)))
    return result.success


def _was_stopped(event: dg.DagsterEvent) -> bool:
    """Return True if the event is the failure of a run that a signal stopped."""
    return event.is_job_failure and event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION
