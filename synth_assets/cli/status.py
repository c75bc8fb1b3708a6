"""`synth status`: show the champion, the last decision, the run in progress, the assets by stage, and the checks."""

import datetime as dt
import time
from collections.abc import Iterable, Iterator

import dagster as dg

from resources.check_results import evaluations_of
from synth_assets.cli.plan import forecast
from synth_assets.cli.recall import champion_taint
from synth_assets.cli.registry import last_decision_lines, serving_line
from synth_assets.cli.rows import entry
from synth_assets.cli.run_progress import RunProgress, duration
from synth_assets.cli.session import Session
from synth_assets.reporting.escaping import terminal_line

RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
MAX_RUNS = 5
MAX_DESCRIPTION_CHARACTERS = 300


def status_text(session: Session) -> str:
    """Return the champion and the last decision, the run in progress, each stage's assets, the checks and the runs."""
    parts = [
        _deployment(session),
        _running(session),
        *_stages(session),
        _checks(session),
        [*_runs(session), "", "synth champion shows the evidence, synth history the decisions before."],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _deployment(session: Session) -> list[str]:
    taint = champion_taint(session)
    return [
        entry("champion", serving_line(session)),
        *([taint] if taint else []),
        *last_decision_lines(session),
        entry("state", f"{session.home}, tier {session.tier_name}"),
    ]


def _running(session: Session) -> list[str]:
    """Describe the runs in progress with the time left."""
    lines, now = [], time.time()
    for record in session.instance.get_run_records(dg.RunsFilter(statuses=RUNNING)):
        run = record.dagster_run
        progress = RunProgress(forecast(session, None), record.start_time or now)
        for event in session.instance.all_logs(run.run_id):
            progress.add(event)
        lines.append(entry("running", f"{_title(run)}: {progress.line(now)}"))
    return lines


def _stages(session: Session) -> Iterator[list[str]]:
    """Yield the lines of each stage, in the order of the pipeline."""
    from synth_assets.definitions import STAGE_NAMES, defs

    graph = defs().resolve_asset_graph()
    keys = graph.toposorted_asset_keys
    width = max(len(key.to_user_string()) for key in keys) + 2
    for stage in STAGE_NAMES:
        lines = [
            f"  {key.to_user_string():{width}}{_age(session.instance.get_latest_materialization_event(key))}"
            for key in keys
            if graph.get(key).group_name == stage
        ]
        yield [stage, *lines]


def _age(event: dg.EventLogEntry | None) -> str:
    if event is None or event.asset_materialization is None:
        return "never materialised"
    version = (event.asset_materialization.tags or {}).get("dagster/data_version", "")
    return f"{version:18}{duration(time.time() - event.timestamp)} ago"


def _checks(session: Session) -> list[str]:
    """List the checks whose last completed evaluation failed, with what it found."""
    from synth_assets.definitions import defs

    evaluations = last_evaluations(session.instance, defs().resolve_asset_graph().asset_check_keys)
    failed = {key: evaluation for key, evaluation in evaluations.items() if not evaluation.passed}
    lines = [f"checks    {len(evaluations) - len(failed)} passed, {len(failed)} failed"]
    for key, evaluation in failed.items():
        found = terminal_line(evaluation.description or "no description", MAX_DESCRIPTION_CHARACTERS)
        lines.append(f"  {evaluation.severity.value:6}{key.asset_key.to_user_string()}: {key.name}: {found}")
    return lines


def _runs(session: Session) -> list[str]:
    lines = ["last runs"]
    for record in session.instance.get_run_records(limit=MAX_RUNS):
        started = dt.datetime.fromtimestamp(record.start_time or 0, dt.UTC)
        status = record.dagster_run.status.value.lower()
        lines.append(f"  {started:%Y-%m-%d %H:%M} UTC  {status:10}{_title(record.dagster_run)}")
    return lines


def _title(run: dg.DagsterRun) -> str:
    batch = run.tags.get("batch", "")
    return f"run {run.run_id[:8]} ({run.job_name}{f', batch {terminal_line(batch)}' if batch else ''})"


def last_evaluations(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    """Return the last completed evaluation of each check that has one, in the order of the keys.

    While a run is going, the newest record of a check may only be planned; the evaluation before it counts then.
    """
    keys = list(keys)
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    evaluations: dict[dg.AssetCheckKey, dg.AssetCheckEvaluation] = {}
    for key in keys:
        if key not in records:
            continue
        event = records[key].event
        evaluation = event.asset_check_evaluation if event else None
        evaluation = evaluation or next((past for _, past in evaluations_of(instance, key)), None)
        if evaluation is not None:
            evaluations[key] = evaluation
    return evaluations
