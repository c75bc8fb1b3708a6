"""`synth run`: run the pipeline for one batch and print its progress."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from resources.inference import Inference
from resources.partitions import (
    BATCHES_NAME,
    FIRST_BATCH,
    check_batch,
    stored_batches,
    usable_batches,
)
from resources.run_processes import PROCESS_TAG, close_dead_runs, this_process
from resources.step_meter import MAX_COST, MAX_MINUTES
from resources.storage import SynthHome
from synth_assets.cli.commit import COMMIT, present_commit
from synth_assets.cli.execution import JobRun, execute
from synth_assets.cli.plan import forecast
from synth_assets.cli.ranges import samples_in_range
from synth_assets.cli.run_progress import Forecast
from synth_assets.cli.session import Session
from synth_assets.cli.settings import ops_for
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.evals.suite import Suite, check_files
from synth_assets.evals.suites import find_suites
from synth_assets.llm.size_settings import WRITTEN_SUITES
from synth_assets.orchestration.run_queue import run_slot, wait_for_run_slot
from synth_assets.schemas.tier import Tier
from synth_assets.storage.budgets import run_limits

TRIGGER = "synth run"
BENCHMARK_ITEMS = dg.AssetKey("benchmark_items")


@dataclass(frozen=True)
class Launch:
    """Options of a run."""

    batch: str | None = None
    samples: int | None = None
    select: str | None = None
    settings: tuple[str, ...] = ()  # "asset.field=value"
    in_process: bool = False
    max_minutes: float | None = None
    max_cost: float | None = None


def pipeline_job() -> dg.JobDefinition:
    """Return the job `pipeline` of this deployment. Step processes import this function by name."""
    from synth_assets.definitions import defs

    return defs().resolve_job_def("pipeline")


def pipeline_job_in_process() -> dg.JobDefinition:
    """Return the job `pipeline` with all steps in this process."""
    from synth_assets.definitions import build_definitions, deployment_resources

    return build_definitions(deployment_resources(), dg.in_process_executor).resolve_job_def("pipeline")


def run_pipeline(session: Session, launch: Launch, console: RedactingConsole) -> bool:
    """Run the job and print its progress; return True if every step succeeded.

    Raises:
        ValueError: the batch name, a setting or a model is invalid; no step was started.
    """
    from synth_assets.cli.index_page import write_index
    from synth_assets.orchestration.run_validation import check_settings

    make_job = pipeline_job_in_process if launch.in_process else pipeline_job
    job = make_job()
    limits = limit_tags(launch, session.tier)
    config = run_config(job, launch)
    check_settings(config, session.hardware)
    selection = _selected_assets(job, launch.select)
    preflight(session)
    if selection is None or BENCHMARK_ITEMS in selection:
        check_benchmarks(session, config)
    batch_name(session, launch.batch)
    close_dead_runs(session.instance)
    session.limit_model_steps()
    with _run_turn(session, console, launch.in_process):
        batch = choose_batch(session, launch.batch)
        tags = {**run_tags(batch, session.tier_name), COMMIT: present_commit(), **limits}
        expected, resume = expected_duration(session, launch), resume_command(launch, batch)
        succeeded = execute(session, JobRun(make_job, config, tags, selection, expected, resume), console)
    write_index(session)
    return succeeded


@contextmanager
def _run_turn(session: Session, console: RedactingConsole, in_process: bool) -> Iterator[None]:
    """Wait until no other run writes the tables. Hold the lock for an in-process run; its executor does not."""

    def report(line: str) -> None:
        console.print(line, markup=False)

    if not in_process:
        wait_for_run_slot(session.home, report)
        yield
        return
    with run_slot(session.home, f"synth run --in-process (process {os.getpid()})", report):
        yield


def limit_tags(launch: Launch, tier: Tier) -> dict[str, str]:
    """Return the tags that tell long steps the limits of the run. Raises ValueError for an invalid limit."""
    run_limits(launch.max_minutes, launch.max_cost, tier.usd_per_hour, 0.0)
    if launch.max_cost is not None and not tier.usd_per_hour:
        raise ValueError("--max-cost needs a tier with a price, got one at 0 USD an hour; use --max-minutes")
    limits = {MAX_MINUTES: launch.max_minutes, MAX_COST: launch.max_cost}
    return {tag: f"{value:g}" for tag, value in limits.items() if value is not None}


def expected_duration(session: Session, launch: Launch) -> Forecast:
    """Return the expected duration of a run; that of the whole pipeline says nothing about a part of it."""
    expected = forecast(session, launch.samples)
    return expected if launch.select is None else replace(expected, seconds=None)


def resume_command(launch: Launch, batch: str) -> list[str]:
    """Return the command that continues a run with the same options."""
    options = {
        "--batch": [batch],
        "--samples": [] if launch.samples is None else [str(launch.samples)],
        "--select": [launch.select] if launch.select else [],
        "--set": launch.settings,
    }
    return ["synth", "run", *(part for name, values in options.items() for value in values for part in (name, value))]


def selection_text(session: Session, launch: Launch) -> str:
    """Describe in a line what a run covers: its batch and its assets.

    Raises:
        ValueError: the batch name or the selection is invalid.
    """
    batch = batch_name(session, launch.batch)
    is_new = batch not in session.instance.get_dynamic_partitions(BATCHES_NAME)
    job = pipeline_job()
    every = list(job.asset_layer.executable_asset_keys)
    selected = _selected_assets(job, launch.select)
    if selected is None:
        assets = f"all {len(every)} assets of the pipeline"
    else:
        names = ", ".join(key.to_user_string() for key in selected)
        assets = f"{len(selected)} of {len(every)} assets: {names}"
    return f"run      batch {batch}{' (new)' if is_new else ''}, {assets}"


def run_tags(batch: str, tier: str) -> dict[str, str]:
    """Return the tags of a run: partition, batch, tier, trigger and process."""
    return {"dagster/partition": batch, "batch": batch, "tier": tier, "trigger": TRIGGER, PROCESS_TAG: this_process()}


def run_config(job: dg.JobDefinition, launch: Launch) -> dict[str, Any]:
    """Return Dagster's run config for a launch.

    Raises:
        ValueError: a setting is not valid for the job, or `samples` is out of range.
    """
    samples = [] if launch.samples is None else [f"raw_instructions.samples={samples_in_range(launch.samples)}"]
    return {"ops": ops_for(job, [*launch.settings, *samples])}


def check_benchmarks(session: Session, config: Mapping[str, Any]) -> None:
    """Read the benchmark files of the run's suites, to report an invalid file before the run starts.

    Raises:
        FileNotFoundError: a suite has no items.
        ValueError: a suite does not exist, or a file is invalid; the message names file, line and field.
    """
    names = config["ops"].get("benchmark_items", {}).get("config", {}).get("suites")
    home = SynthHome(folder=str(session.home), benchmark_folder=os.environ.get("SYNTH_BENCHMARKS", ""))
    suites = find_suites(session.tier.suites if names is None else names)
    check_files(suites, home.benchmarks())
    if os.environ.get("HF_DATASETS_OFFLINE") == "1":
        _check_offline(suites, home.benchmarks())


def _check_offline(suites: Sequence[Suite], folder: Path) -> None:
    """Read the suites from the hub out of the local cache, because the run is offline.

    Raises:
        FileNotFoundError: a suite is not cached; the message lists the suites that need no file.
    """
    for suite in suites:
        if not suite.from_hub or any(folder.glob(suite.files)):
            continue
        try:
            suite.items(folder)
        except FileNotFoundError as error:
            names = ", ".join(WRITTEN_SUITES)
            remedy = f"Or evaluate on the suites that need no file: --set 'benchmark_items.suites=[{names}]'"
            raise FileNotFoundError(f"{error}. {remedy}") from error


def preflight(session: Session) -> None:
    """Resolve every model and the MLflow address, to report a wrong one before the run starts."""
    session.tracking.uri()
    inference = Inference(hardware=session.hardware)
    for role in ("teacher", "base", "reward"):
        inference.resolve(role)


def batch_name(session: Session, name: str | None) -> str:
    """Return the named batch; by default the newest one with a valid name, else `first`.

    Raises:
        BatchNameError: the name is invalid.
    """
    existing = usable_batches(session.instance.get_dynamic_partitions(BATCHES_NAME))
    if name is None:
        return existing[-1] if existing else FIRST_BATCH
    return check_batch(name, stored_batches(session.home / "tables"))


def choose_batch(session: Session, name: str | None) -> str:
    """Return the batch to run, as `batch_name` does, and add its partition if it is new."""
    batch = batch_name(session, name)
    session.instance.add_dynamic_partitions(BATCHES_NAME, [batch])
    return batch


def _selected_assets(job: dg.JobDefinition, select: str | None) -> list[dg.AssetKey] | None:
    if select is None:
        return None
    try:
        selection = dg.AssetSelection.from_string(select).required_multi_asset_neighbors()
        keys = selection.resolve(job.asset_layer.asset_graph)
    except dg.DagsterError as error:
        raise ValueError(
            f"--select must be a Dagster selection such as 'key:sft_dataset+', got {select!r}: {error}"
        ) from error
    if not keys:
        raise ValueError(f"--select {select!r} must match an asset of the job, matched none")
    return sorted(keys)
