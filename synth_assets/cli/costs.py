"""What a run took: wall time, price, new tokens, longest steps; and its limits, before it starts."""

from collections.abc import Mapping

import dagster as dg

from synth_assets.llm.costs import cost_usd
from synth_assets.storage.budgets import MINUTE_S, WorkBudget, run_limits

SHOWN_STEPS = 5
LOOK_BACK = 20  # runs searched for a whole one


def run_costs_text(instance: dg.DagsterInstance, run_id: str, usd_per_hour: float) -> str:
    """Return two lines about a run that has ended; nothing where Dagster does not know when it began and ended."""
    record = instance.get_run_record_by_id(run_id)
    if record is None or not (record.start_time and record.end_time):
        return ""
    seconds = record.end_time - record.start_time
    price = f", {cost_usd(seconds, usd_per_hour):.2f} USD at {usd_per_hour:g} USD an hour" if usd_per_hour else ""
    tokens = _new_tokens(instance, run_id)
    written = f", {tokens:,} new tokens" if tokens else ""
    return f"The run took {seconds / 60:.1f} min{price}{written}.\n{_longest(instance, run_id)}"


def last_steps_text(instance: dg.DagsterInstance, tier: str) -> str:
    """Return the longest steps of the last whole run of the pipeline on this tier; nothing where there is none."""
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], job_name="pipeline", tags={"tier": tier})
    whole = (run for run in instance.get_runs(wanted, limit=LOOK_BACK) if run.asset_selection is None)
    last = next(whole, None)
    return "" if last is None else f"last run: {_longest(instance, last.run_id)}"


def limits_text(minutes: float | None, max_minutes: float | None, max_cost: float | None, usd_per_hour: float) -> str:
    """Return a line about the limits of a run beside what it is expected to take; nothing where it has none.

    Args:
        minutes: expected; None: nobody knows.
        max_minutes: of the run.
        max_cost: of the run, in US dollars.
        usd_per_hour: the tier's price.
    """
    limit = WorkBudget(run_limits(max_minutes, max_cost, usd_per_hour, 0.0)).tightest()
    if limit is None:
        return ""
    short = minutes is not None and minutes * MINUTE_S > limit.seconds
    outlook = "shorter than expected; what is finished is kept" if short else "what is finished is kept"
    return f"limit    {limit.seconds / MINUTE_S:.1f} minutes ({limit.source}): {outlook}"


def _longest(instance: dg.DagsterInstance, run_id: str) -> str:
    steps = _step_seconds(instance, run_id)
    longest = sorted(steps, key=lambda name: (-steps[name], name))[:SHOWN_STEPS]
    return f"Longest steps: {', '.join(f'{name} {steps[name]:.0f} s' for name in longest) or 'none'}."


def _step_seconds(instance: dg.DagsterInstance, run_id: str) -> Mapping[str, float]:
    stats = instance.get_run_step_stats(run_id)
    return {step.step_key: step.end_time - step.start_time for step in stats if step.start_time and step.end_time}


def _new_tokens(instance: dg.DagsterInstance, run_id: str) -> int:
    """Return the tokens that models wrote in all steps of the run."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [record.event_log_entry.dagster_event for record in records]
    made = [event.step_materialization_data.materialization for event in events if event]
    values = [one.metadata["new_tokens"].value for one in made if "new_tokens" in one.metadata]
    return sum(value for value in values if isinstance(value, int))
