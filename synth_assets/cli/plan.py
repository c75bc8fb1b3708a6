"""`synth plan`: what a run will take, from what runs here have taken; what nobody measured is called unknown."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from synth_assets.cli.session import Session
from synth_assets.stages.generation.spec import MagpieSpec

BYTES_PER_TOKEN = 16  # text of about 4 bytes a token, kept as raw, judged, split and paired row
MB = 10**6
LOOK_BACK = 20  # materialisations searched for one whose run made its rows anew


@dataclass(frozen=True)
class ShippedRun:
    """A complete run that was measured before this version was released."""

    rows: int
    minutes: float
    machine: str


SHIPPED_RUNS = {("cpu", "embedded:teacher", "embedded:base"): ShippedRun(1_536, 6.7, "2 x86-64 cores")}
"""By tier, teacher and base: what a first run takes where this home has no run yet. Measured with `make demo`."""


@dataclass(frozen=True)
class Plan:
    """What a run will take; None where no run was measured."""

    rows: int
    tokens_at_most: int
    minutes: float | None
    disk_bytes: int
    usd: float | None
    basis: str


def make_plan(session: Session, samples: int | None) -> Plan:
    """Rows and tokens from the spec, minutes from the last run here that generated, scaled by rows."""
    spec = session.hardware.spec(MagpieSpec())
    rows = samples or spec.samples
    tokens = rows * (spec.max_instruction_tokens + spec.max_response_tokens)
    minutes, basis = _minutes(session, rows)
    usd = None if minutes is None else minutes / 60 * session.tier.usd_per_hour
    return Plan(rows, tokens, minutes, tokens * BYTES_PER_TOKEN, usd, basis)


def plan_text(session: Session, samples: int | None) -> str:
    """The plan in a few lines of at most 80 columns."""
    plan = make_plan(session, samples)
    tier = session.tier
    free = shutil.disk_usage(_existing(session.home)).free
    minutes = "unknown" if plan.minutes is None else f"about {plan.minutes:.1f}"
    lines = [
        f"tier     {session.tier_name} ({tier.device}, {tier.dtype}); tested: {tier.tested or 'never, by nobody'}",
        f"models   {tier.teacher} -> {tier.base}, judged by {tier.reward}",
        *size_lines(session),
        f"rows     {plan.rows:,} raw instructions; at most {plan.tokens_at_most:,} new tokens",
        f"minutes  {minutes} ({plan.basis})",
        f"disk     up to {size_text(plan.disk_bytes)} of tables; {size_text(free)} are free at {session.home}",
    ]
    if tier.usd_per_hour:
        total = "" if plan.usd is None else f"{plan.usd:.2f} USD, "
        lines.append(f"price    {total}at {tier.usd_per_hour:.2f} USD an hour")
    return "\n".join(lines)


def size_text(size: int) -> str:
    """Return a number of bytes in MB below 1 GB, else in GB (powers of ten)."""
    return f"{max(size / MB, 1):,.0f} MB" if size < 1_000 * MB else f"{size / (1_000 * MB):,.1f} GB"


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def size_lines(session: Session) -> list[str]:
    """Return a line for each of teacher and base with the size class that its settings are chosen by."""
    return [f"size     {role}: {session.hardware.size(role).text()}" for role in ("teacher", "base")]


def _minutes(session: Session, rows: int) -> tuple[float | None, str]:
    made = session.instance.fetch_materializations(dg.AssetKey("raw_instructions"), limit=LOOK_BACK).records
    for record in made:
        facts = record.asset_materialization.metadata if record.asset_materialization else {}
        before = int(str(facts["dagster/row_count"].value)) if "dagster/row_count" in facts else 0
        run = session.instance.get_run_record_by_id(record.run_id)
        if (
            run is None
            or not (run.start_time and run.end_time)
            or run.dagster_run.tags.get("tier") != session.tier_name
            or run.dagster_run.asset_selection is not None  # a part of the pipeline
            or not before
        ):
            continue
        if facts["new_tokens"].value and run.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            minutes = (run.end_time - run.start_time) / 60
            return minutes * rows / before, f"the last run here that generated: {before:,} rows in {minutes:.1f}"
    shipped = SHIPPED_RUNS.get((session.tier_name, session.tier.teacher, session.tier.base))
    if shipped is None:
        return None, "no complete run here yet; docs/results.md lists measured runs"
    return shipped.minutes * rows / shipped.rows, f"{shipped.rows:,} rows took {shipped.minutes} on {shipped.machine}"
