"""`synth plan`: what a run will take, from what runs here have taken; what nobody measured is called unknown."""

import shutil
from dataclasses import dataclass

import dagster as dg

from resources.hardware import Hardware
from synth_assets.commands.session import Session
from synth_assets.generation.magpie import MagpieSpec

BYTES_PER_TOKEN = 16  # text of about 4 bytes a token, kept as raw, judged, split and paired row
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What a run will take; None where no run has told."""

    rows: int
    tokens_at_most: int
    minutes: float | None
    disk_bytes: int
    usd: float | None
    basis: str


def make_plan(session: Session, samples: int | None) -> Plan:
    """Rows and tokens from the spec, minutes from the last complete run of this deployment scaled by rows."""
    spec = Hardware(tier=session.tier_name).spec(MagpieSpec())
    rows = samples or spec.samples
    tokens = rows * (spec.max_instruction_tokens + spec.max_response_tokens)
    minutes, basis = _minutes(session, rows)
    usd = None if minutes is None else minutes / 60 * session.tier.usd_per_hour
    return Plan(rows, tokens, minutes, tokens * BYTES_PER_TOKEN, usd, basis)


def plan_text(session: Session, samples: int | None) -> str:
    """The plan in a few lines of at most 80 columns."""
    plan = make_plan(session, samples)
    tier = session.tier
    minutes = "unknown" if plan.minutes is None else f"about {plan.minutes:.1f}"
    usd = "unknown" if plan.usd is None else f"{plan.usd:.2f} USD"
    free = shutil.disk_usage(session.home if session.home.exists() else session.home.parent).free
    return "\n".join(
        [
            f"tier     {session.tier_name} ({tier.device}, {tier.dtype}); tested: {tier.tested or 'never, by nobody'}",
            f"models   {tier.teacher} -> {tier.base}, judged by {tier.reward}",
            f"rows     {plan.rows:,} raw instructions; at most {plan.tokens_at_most:,} new tokens",
            f"minutes  {minutes} ({plan.basis})",
            f"disk     up to {plan.disk_bytes / GIB:.2f} GB of tables; {free / GIB:.0f} GB are free at {session.home}",
            f"price    {usd} at {tier.usd_per_hour:.2f} USD an hour",
        ]
    )


def _minutes(session: Session, rows: int) -> tuple[float | None, str]:
    done = dg.RunsFilter(job_name="pipeline", statuses=[dg.DagsterRunStatus.SUCCESS], tags={"tier": session.tier_name})
    for record in session.instance.get_run_records(done, limit=20):
        before = record.dagster_run.tags.get("synth/new_rows")
        if before and int(before) > 0 and record.start_time and record.end_time:
            minutes = (record.end_time - record.start_time) / 60
            return minutes * rows / int(before), f"the last such run made {int(before):,} rows in {minutes:.1f}"
    return None, "no run on this machine yet; docs/tested.md has what others took"
