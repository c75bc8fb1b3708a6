"""`synth plan`: estimate the rows, time, disk space and price of a run from earlier runs in this home."""

from dataclasses import dataclass

import dagster as dg

from synth_assets.cli.costs import step_seconds
from synth_assets.cli.run_progress import Forecast
from synth_assets.cli.session import Session
from synth_assets.stages.generation.spec import MagpieSpec
from synth_assets.storage.budgets import MINUTE_S
from synth_assets.storage.disk import free_bytes

BYTES_PER_TOKEN = 16  # about 4 bytes of text per token, stored as raw, filtered, split and paired row
MB = 10**6
MIN_STEP_S = 1.5  # start and end of a step, whatever its rows
MAX_MATERIALISATIONS = 20  # searched for one whose run generated its rows


@dataclass(frozen=True)
class ShippedRun:
    """A complete run that was measured for this release."""

    rows: int
    minutes: float
    machine: str


SHIPPED_RUNS = {
    ("cpu", "embedded:teacher", "embedded:base"): ShippedRun(1_536, 3.5, "2 x86-64 cores"),
    ("laptop", "package:smollm2", "package:smollm2"): ShippedRun(320, 91.1, "2 busy x86-64 hardware threads"),
}
"""Estimates for the first run of a home, by tier, teacher and base. Measured with `make demo`."""


@dataclass(frozen=True)
class Plan:
    """Estimated cost of a run; None for values that no run has measured."""

    rows: int
    max_tokens: int
    minutes: float | None
    disk_bytes: int
    usd: float | None
    basis: str


def make_plan(session: Session, samples: int | None) -> Plan:
    """Estimate a run: rows and tokens from the spec, minutes from the last run that generated rows, scaled by rows."""
    spec = session.hardware.spec(MagpieSpec())
    rows = spec.samples if samples is None else samples
    tokens = rows * (spec.max_instruction_tokens + spec.max_response_tokens * spec.response_attempts)
    minutes, basis = _minutes(session, rows)
    usd = None if minutes is None else minutes / 60 * session.tier.usd_per_hour
    return Plan(rows, tokens, minutes, tokens * BYTES_PER_TOKEN, usd, basis)


def plan_text(session: Session, samples: int | None) -> str:
    """Return the estimate in a few lines."""
    plan = make_plan(session, samples)
    tier = session.tier
    free = free_bytes(session.home)
    minutes = "unknown" if plan.minutes is None else f"about {max(plan.minutes, 0.1):.1f}"
    lines = [
        f"tier     {session.tier_name} ({tier.device}, {tier.dtype}); status: {tier.tested or 'untested'}",
        f"models   {tier.teacher} -> {tier.base}, reward model {tier.reward}",
        *size_lines(session),
        f"rows     {plan.rows:,} raw instructions; at most {plan.max_tokens:,} new tokens",
        f"minutes  {minutes} ({plan.basis})",
        f"disk     up to {size_text(plan.disk_bytes)} of tables; {size_text(free)} free at {session.home}",
    ]
    if tier.usd_per_hour:
        total = "" if plan.usd is None else f"{plan.usd:.2f} USD, "
        lines.append(f"price    {total}at {tier.usd_per_hour:.2f} USD an hour")
    return "\n".join(lines)


def size_text(size: int) -> str:
    """Format a number of bytes in MB, or in GB from 1 GB (powers of ten)."""
    return f"{max(size / MB, 1):,.0f} MB" if size < 1_000 * MB else f"{size / (1_000 * MB):,.1f} GB"


def size_lines(session: Session) -> list[str]:
    """Return a line for the teacher and one for the base with the size class that selects their settings."""
    return [f"size     {role}: {session.hardware.size(role).text()}" for role in ("teacher", "base")]


def forecast(session: Session, samples: int | None, *, is_part: bool = False) -> Forecast:
    """Return the expected duration of a run and of its steps, from the last run that generated rows.

    The duration of the whole pipeline says nothing about a part of it; those of the steps do.
    """
    plan, measured = make_plan(session, samples), _measured_run(session)
    seconds = None if is_part or plan.minutes is None else plan.minutes * MINUTE_S
    if measured is None:
        return Forecast(seconds)
    steps = step_seconds(session.instance, measured.run_id)
    scale = plan.rows / measured.rows
    expected = {name: max(length * scale, min(length, MIN_STEP_S)) for name, length in steps.items()}
    return Forecast(seconds, expected, max(sum(steps.values()) / measured.seconds, 1.0))


@dataclass(frozen=True)
class MeasuredRun:
    """A complete run of this deployment that generated rows."""

    run_id: str
    rows: int
    seconds: float


def _minutes(session: Session, rows: int) -> tuple[float | None, str]:
    if measured := _measured_run(session):
        minutes = measured.seconds / MINUTE_S
        basis = f"the last run that generated: {measured.rows:,} rows in {minutes:.1f}"
        return minutes * rows / measured.rows, basis
    shipped = SHIPPED_RUNS.get((session.tier_name, session.tier.teacher, session.tier.base))
    if shipped is None:
        return None, "no complete run yet; docs/results.md lists measured runs"
    return shipped.minutes * rows / shipped.rows, f"{shipped.rows:,} rows took {shipped.minutes} on {shipped.machine}"


def _measured_run(session: Session) -> MeasuredRun | None:
    key = dg.AssetKey("raw_instructions")
    for record in session.instance.fetch_materializations(key, limit=MAX_MATERIALISATIONS).records:
        metadata = record.asset_materialization.metadata if record.asset_materialization else {}
        rows = int(str(metadata["dagster/row_count"].value)) if "dagster/row_count" in metadata else 0
        run = session.instance.get_run_record_by_id(record.run_id)
        if (
            run is None
            or not (run.start_time and run.end_time)
            or run.dagster_run.tags.get("tier") != session.tier_name
            or run.dagster_run.asset_selection is not None  # a part of the pipeline
            or not rows
        ):
            continue
        if metadata["new_tokens"].value and run.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            return MeasuredRun(record.run_id, rows, run.end_time - run.start_time)
    return None
