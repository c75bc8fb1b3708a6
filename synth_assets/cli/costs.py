"""Report the cost of a run (wall time, price, new tokens, longest steps) and the limits that are set for it."""

from collections.abc import Mapping

import dagster as dg

from synth_assets.llm.costs import cost_usd
from synth_assets.storage.budgets import MINUTE_S, WorkBudget, run_limits

MAX_SHOWN_STEPS = 5
MAX_RUNS = 20  # searched for a run of the whole pipeline


def run_costs_text(instance: dg.DagsterInstance, run_id: str, usd_per_hour: float) -> str:
    """Return two lines about a finished run; empty if Dagster has no start or end time for it."""
    record = instance.get_run_record_by_id(run_id)
    if record is None or not (record.start_time and record.end_time):
        return ""
    seconds = record.end_time - record.start_time
    price = f", {cost_usd(seconds, usd_per_hour):.2f} USD at {usd_per_hour:g} USD an hour" if usd_per_hour else ""
    tokens = _new_tokens(instance, run_id)
    written = f", {tokens:,} new tokens" if tokens else ""
    return f"The run took {seconds / 60:.1f} min{price}{written}.\n{_longest(instance, run_id)}"


def last_steps_text(instance: dg.DagsterInstance, tier: str) -> str:
    """Return the longest steps of the last run of the whole pipeline on this tier; empty if there is none."""
    runs_filter = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], job_name="pipeline", tags={"tier": tier})
    complete = (run for run in instance.get_runs(runs_filter, limit=MAX_RUNS) if run.asset_selection is None)
    last = next(complete, None)
    return "" if last is None else f"last run: {_longest(instance, last.run_id)}"


def limits_text(minutes: float | None, max_minutes: float | None, max_cost: float | None, usd_per_hour: float) -> str:
    """Return a line that compares the limit of a run with its expected duration; empty without a limit.

    Args:
        minutes: expected duration; None if unknown.
        max_minutes: limit of the wall time in minutes.
        max_cost: limit of the cost in USD.
        usd_per_hour: price of the tier.
    """
    limit = WorkBudget(run_limits(max_minutes, max_cost, usd_per_hour, 0.0)).tightest()
    if limit is None:
        return ""
    short = minutes is not None and minutes * MINUTE_S > limit.seconds
    outlook = "shorter than the expected duration; finished work is kept" if short else "finished work is kept"
    return f"limit    {limit.seconds / MINUTE_S:.1f} minutes ({limit.source}): {outlook}"


def _longest(instance: dg.DagsterInstance, run_id: str) -> str:
    steps = step_seconds(instance, run_id)
    longest = sorted(steps, key=lambda name: (-steps[name], name))[:MAX_SHOWN_STEPS]
    return f"Longest steps: {', '.join(f'{name} {steps[name]:.0f} s' for name in longest) or 'none'}."


def step_seconds(instance: dg.DagsterInstance, run_id: str) -> Mapping[str, float]:
    """Return the duration of each step of a run that has ended, in seconds."""
    stats = instance.get_run_step_stats(run_id)
    return {step.step_key: step.end_time - step.start_time for step in stats if step.start_time and step.end_time}


def _new_tokens(instance: dg.DagsterInstance, run_id: str) -> int:
    """Return the number of tokens that were generated in all steps of the run."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [record.event_log_entry.dagster_event for record in records]
    materialisations = [event.step_materialization_data.materialization for event in events if event]
    values = [item.metadata["new_tokens"].value for item in materialisations if "new_tokens" in item.metadata]
    return sum(value for value in values if isinstance(value, int))
