"""`synth run`: one batch through the whole graph, watched from the terminal."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
import yaml
from dagster._core.events import RunFailureReason
from rich.console import Console

from resources.inference import Inference
from resources.run_processes import PROCESS_TAG, close_dead_runs, this_process
from resources.run_turns import turn, wait_for_turn
from synth_assets.commands.session import Session
from synth_assets.commands.watch import RunWatcher
from synth_assets.partitions import BATCHES_NAME, FIRST_BATCH, check_batch, stored_batches, usable_batches
from synth_assets.redaction import holds_secret

TRIGGER = "synth run"


@dataclass(frozen=True)
class Launch:
    """What a person asked for."""

    batch: str | None = None
    samples: int | None = None
    select: str | None = None
    settings: tuple[str, ...] = ()  # "asset.field=value"
    in_process: bool = False


class StoppedError(Exception):
    """A person or the system ended a run; the message says what to do."""


def pipeline_job() -> dg.JobDefinition:
    """The job `pipeline` of this deployment; a module-level function, so that step processes can find it."""
    from synth_assets.definitions import defs

    return defs().resolve_job_def("pipeline")


def pipeline_job_in_process() -> dg.JobDefinition:
    """The same job, all steps in this process."""
    from synth_assets.definitions import build_definitions, deployment_resources

    return build_definitions(deployment_resources(), dg.in_process_executor).resolve_job_def("pipeline")


def run_pipeline(session: Session, launch: Launch, console: Console) -> bool:
    """Run the job and show it; returns whether every step succeeded.

    Raises:
        ValueError: the batch name, a setting or a model is wrong; nothing was started.
    """
    make_job = pipeline_job_in_process if launch.in_process else pipeline_job
    job = make_job()
    config = run_config(launch)
    _validate(job, config)
    selection = _selected(job, launch.select)
    preflight(session)
    batch_name(session, launch.batch)
    close_dead_runs(session.instance)
    session.limit_model_steps()
    with _own_turn(session, console, launch.in_process):
        tags = run_tags(choose_batch(session, launch.batch), session.tier_name)
        return execute(session, make_job, config, tags, console, selection)


@contextmanager
def _own_turn(session: Session, console: Console, in_process: bool) -> Iterator[None]:
    """Wait until no other run writes the tables; hold the turn where the executor of this run does not take it."""

    def report(line: str) -> None:
        console.print(line, markup=False)

    if not in_process:
        wait_for_turn(session.home, report)
        yield
        return
    with turn(session.home, f"synth run --in-process (process {os.getpid()})", report):
        yield


def run_tags(batch: str, tier: str) -> dict[str, str]:
    """What a run of this command is known by, the process that runs it included."""
    return {"dagster/partition": batch, "batch": batch, "tier": tier, "trigger": TRIGGER, PROCESS_TAG: this_process()}


def execute(
    session: Session,
    make_job: Callable[[], dg.JobDefinition],
    config: Mapping[str, Any],
    tags: Mapping[str, str],
    console: Console,
    selection: Sequence[dg.AssetKey] | None = None,
) -> bool:
    """Run a job to its end, a line per event; returns whether every step succeeded.

    Raises:
        StoppedError: Ctrl-C or SIGTERM ended the steps.
    """
    token = uuid.uuid4().hex
    watcher = RunWatcher(session.instance, token, lambda line: console.print(line, markup=False))
    watcher.start()
    try:
        result = dg.execute_job(
            dg.reconstructable(make_job),
            instance=session.instance,
            run_config={**config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={**tags, "synth/launch": token},
            asset_selection=selection,
        )
    finally:
        watcher.finish()
    if any(_was_stopped(event) for event in result.all_events):
        raise StoppedError("stopped; what was made is kept: run again to go on")
    return result.success


def _was_stopped(event: dg.DagsterEvent) -> bool:
    """Whether this is the end of a run that a signal stopped."""
    return event.is_job_failure and event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION


def run_config(launch: Launch) -> dict[str, Any]:
    """Dagster's run config for a launch; ValueError names a setting that is not asset.field=value, or holds a key."""
    ops: dict[str, dict[str, dict[str, Any]]] = {}
    settings = list(launch.settings)
    if launch.samples is not None:
        if launch.samples < 1:
            raise ValueError(f"--samples must be at least 1, not {launch.samples}")
        settings.append(f"raw_instructions.samples={launch.samples}")
    for setting in settings:
        name, equals, value = setting.partition("=")
        asset, dot, key = name.partition(".")
        if not (equals and dot and asset and key):
            raise ValueError(f"--set wants asset.field=value, not {setting!r}")
        if holds_secret(setting):
            raise ValueError(
                f"--set {name}: the value looks like a secret (a key, or an address with credentials), and settings of "
                "runs are stored and shown in the UI. Pass secrets in environment variables"
            )
        ops.setdefault(asset, {}).setdefault("config", {})[key] = yaml.safe_load(value)
    return {"ops": ops}


def preflight(session: Session) -> None:
    """Resolve every model, and the MLflow in use, before anything runs: what is wrong costs a line and not an hour."""
    session.tracking.uri()
    inference = Inference(hardware=session.hardware)
    for role in ("teacher", "base", "reward"):
        inference.resolve(role)


def batch_name(session: Session, wanted: str | None) -> str:
    """Return the batch asked for, else the newest usable one, else the first.

    Raises:
        BatchNameError: no batch may have the name.
    """
    existing = usable_batches(session.instance.get_dynamic_partitions(BATCHES_NAME))
    if wanted is None:
        return existing[-1] if existing else FIRST_BATCH
    return check_batch(wanted, stored_batches(session.home / "tables"))


def choose_batch(session: Session, wanted: str | None) -> str:
    """Return the batch to run, as `batch_name` finds it, and add it where it is new."""
    batch = batch_name(session, wanted)
    session.instance.add_dynamic_partitions(BATCHES_NAME, [batch])
    return batch


def _validate(job: dg.JobDefinition, config: Mapping[str, Any]) -> None:
    try:
        dg.validate_run_config(job, config)
    except dg.DagsterInvalidConfigError as error:
        raise ValueError("; ".join(" ".join(e.message.split()) for e in error.errors)) from error


def _selected(job: dg.JobDefinition, select: str | None) -> list[dg.AssetKey] | None:
    if select is None:
        return None
    try:
        selection = dg.AssetSelection.from_string(select).required_multi_asset_neighbors()
        keys = selection.resolve(job.asset_layer.asset_graph)
    except dg.DagsterError as error:
        raise ValueError(f"--select {select!r}: {error}. Try 'key:sft_dataset+' or 'group:filtering'") from error
    if not keys:
        raise ValueError(f"--select {select!r} names no asset of the job")
    return sorted(keys)
