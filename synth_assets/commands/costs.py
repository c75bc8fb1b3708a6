"""What a run took, told at its end: wall time, price, new tokens, and the steps that took longest."""

from collections.abc import Mapping

import dagster as dg

from synth_assets.training.costs import cost_usd

SHOWN_STEPS = 5


def run_costs_text(instance: dg.DagsterInstance, run_id: str, usd_per_hour: float) -> str:
    """Return two lines about a run that has ended; nothing where Dagster does not know when it began and ended."""
    record = instance.get_run_record_by_id(run_id)
    if record is None or not (record.start_time and record.end_time):
        return ""
    seconds = record.end_time - record.start_time
    price = f", {cost_usd(seconds, usd_per_hour):.2f} USD at {usd_per_hour:g} USD an hour" if usd_per_hour else ""
    steps = _step_seconds(instance, run_id)
    longest = sorted(steps, key=lambda name: (-steps[name], name))[:SHOWN_STEPS]
    shown = ", ".join(f"{name} {steps[name]:.0f} s" for name in longest)
    tokens = _new_tokens(instance, run_id)
    written = f", {tokens:,} new tokens" if tokens else ""
    return f"The run took {seconds / 60:.1f} min{price}{written}.\nLongest steps: {shown or 'none'}."


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
