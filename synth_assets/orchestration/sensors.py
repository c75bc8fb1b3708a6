"""Schedule and sensors. All of them are off by default; switch them on in the UI under Automation."""

import hashlib
from collections.abc import Sequence
from typing import Any

import dagster as dg

from resources.hardware import Hardware
from resources.partitions import BATCHES_NAME, FIRST_BATCH, usable_batches
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from resources.webhook import Notice, Webhook
from synth_assets.orchestration import jobs
from synth_assets.orchestration.failures import failures_of_run
from synth_assets.orchestration.outbox import Source, deliver, make_notice
from synth_assets.orchestration.run_queue import QUEUED
from synth_assets.schemas.records import ChampionRecord
from synth_assets.stages.promotion.alias import moved_by_hand
from synth_assets.stages.promotion.config import PromotionConfig
from synth_assets.storage.manifests import file_sha256

EVERY_MONDAY = "0 3 * * 1"
PARTITION = "dagster/partition"
"""Dagster's tag for the partition of a run. Run requests set it instead of a partition key, which would have to exist
already. The asset `raw_instructions` adds the batch during the run, so that testing a tick in the UI adds none."""
ALL_BATCHES = "all"  # tag of runs that read all batches and generate none

EVERYTHING = dg.AssetSelection.all() - dg.AssetSelection.groups("efficiency", "reward_training", "export")
FROM_IMPORTS = EVERYTHING & dg.AssetSelection.assets("imported_instructions", "imported_preferences").downstream(
    include_self=True
)


@dg.schedule(
    job=jobs.pipeline,
    cron_schedule=EVERY_MONDAY,
    description="Each Monday at 03:00 UTC: runs the pipeline with a new batch named after the week, such as 2026-W47.",
)
def retraining(context: dg.ScheduleEvaluationContext, hardware: Hardware) -> dg.RunRequest:
    """Run the pipeline each Monday at 03:00 UTC with a new batch named after the ISO week.

    Idempotent: a week always requests the same batch and the same run key.
    """
    year, week, _ = context.scheduled_execution_time.isocalendar()
    batch = f"{year}-W{week:02}"
    tags = {**QUEUED, "trigger": "schedule", "batch": batch, PARTITION: batch, "tier": hardware.name()}
    return dg.RunRequest(run_key=batch, tags=tags)


@dg.sensor(
    asset_selection=EVERYTHING,
    minimum_interval_seconds=60,
    description="After synth import: filters the new rows and trains, evaluates and decides again, once per set of "
    "files. Without a batch it runs the whole pipeline.",
)
def new_imports(
    context: dg.SensorEvaluationContext, home: SynthHome, hardware: Hardware
) -> dg.RunRequest | dg.SkipReason:
    """Run the pipeline from the imports on when files in SYNTH_HOME/imports change, once per set of file contents.

    If there is no batch yet, the run covers the whole pipeline and generates the first batch.
    """
    files = sorted(p for p in home.imports().iterdir() if p.is_file() and not p.name.startswith("."))
    if not files:
        return dg.SkipReason("nothing has been imported yet: synth import FILE")
    contents = hashlib.sha256("".join(sorted(map(file_sha256, files))).encode()).hexdigest()[:16]
    tags = {**QUEUED, "trigger": "import", "imports": contents, "tier": hardware.name()}
    if not usable_batches(context.instance.get_dynamic_partitions(BATCHES_NAME)):
        return dg.RunRequest(run_key=contents, tags={**tags, "batch": FIRST_BATCH, PARTITION: FIRST_BATCH})
    if context.repository_def is None:
        raise ValueError("new_imports needs the asset graph of its code location; evaluate it with a repository")
    keys = sorted(FROM_IMPORTS.resolve(context.repository_def.asset_graph))
    return dg.RunRequest(run_key=contents, asset_selection=keys, tags={**tags, "batch": ALL_BATCHES})


@dg.sensor(
    minimum_interval_seconds=30,
    description="Sends the reason of each failed run to SYNTH_WEBHOOK_URL, until the webhook accepts it.",
)
def failure_notice(context: dg.SensorEvaluationContext, webhook: Webhook) -> dg.SkipReason:
    """Send a notice to the webhook for each failed run, with the reason. Retries until the webhook accepts it."""
    instance = context.instance

    def failures(**limits: Any) -> dg.RunStatusChangeRecordsFilter:  # noqa: ANN401 - fields of the filter
        return dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, **limits)

    def newer(after: int | None, since: float, limit: int) -> Sequence[dg.EventLogRecord]:
        position = {"after_storage_id": after} if after is not None else {"after_timestamp": since}
        return instance.fetch_run_status_changes(failures(**position), limit, ascending=True).records

    def by_id(events: Sequence[int]) -> Sequence[dg.EventLogRecord]:
        return instance.fetch_run_status_changes(failures(storage_ids=events), len(events)).records

    def notice(record: dg.EventLogRecord) -> Notice:
        run = instance.get_run_by_id(record.run_id)
        event = record.event_log_entry.dagster_event
        reasons = failures_of_run(instance, record.run_id) or [event.message or "no message" if event else "no message"]
        text = f"{run.job_name if run else 'a run'} failed: {'; '.join(reasons)}"
        return make_notice(f"failure-{record.run_id}", text, {"run_id": record.run_id, **(run.tags if run else {})})

    return deliver(context, webhook, Source(newer, by_id, notice))


@dg.sensor(
    minimum_interval_seconds=30,
    description="Sends each promotion decision with its reason to SYNTH_WEBHOOK_URL, until the webhook accepts it.",
)
def decision_notice(context: dg.SensorEvaluationContext, webhook: Webhook) -> dg.SkipReason:
    """Send a notice to the webhook for each promotion decision. Retries until the webhook accepts it."""
    instance = context.instance

    def decisions(**limits: Any) -> dg.AssetRecordsFilter:  # noqa: ANN401 - fields of the filter
        return dg.AssetRecordsFilter(dg.AssetKey("promotion_decision"), **limits)

    def newer(after: int | None, since: float, limit: int) -> Sequence[dg.EventLogRecord]:
        position = {"after_storage_id": after} if after is not None else {"after_timestamp": since}
        return instance.fetch_materializations(decisions(**position), limit, ascending=True).records

    def by_id(events: Sequence[int]) -> Sequence[dg.EventLogRecord]:
        return instance.fetch_materializations(decisions(storage_ids=events), len(events)).records

    def notice(record: dg.EventLogRecord) -> Notice:
        materialisation = record.asset_materialization
        facts = {k: str(v.value) for k, v in materialisation.metadata.items()} if materialisation else {}
        text = f"promotion: {facts.get('outcome', 'decided')} ({facts.get('reason', 'see the asset')})"
        return make_notice(f"decision-{record.run_id}-{record.storage_id}", text, {**facts, "run_id": record.run_id})

    return deliver(context, webhook, Source(newer, by_id, notice))


@dg.sensor(
    job=jobs.promote,
    minimum_interval_seconds=60,
    description="After @champion was moved in MLflow: judges that version by the promotion policy, records the move, "
    "and flags it if the policy refuses the version.",
)
def champion_moved_by_hand(
    home: SynthHome, tracking: MlflowTracking, hardware: Hardware
) -> dg.RunRequest | dg.SkipReason:
    """Run the promotion policy when @champion was moved in MLflow; record the move as manual, flag a violation."""
    if not tracking.exists():
        return dg.SkipReason("no model has been registered yet: synth run")
    recorded = home.record("champion", ChampionRecord)
    moved = moved_by_hand(tracking.tracker(), recorded)
    if moved is None:
        return dg.SkipReason("@champion has not been moved since the last promotion")
    config = dg.RunConfig(ops={"promotion_decision": PromotionConfig(adopt=True)})
    since = recorded.moved_at if recorded else "never"
    tags = {"trigger": "alias", "batch": ALL_BATCHES, "tier": hardware.name()}
    return dg.RunRequest(run_key=f"{moved or 'none'} after {since}", run_config=config, tags=tags)


SCHEDULES = [retraining]
SENSORS = [new_imports, champion_moved_by_hand, failure_notice, decision_notice]
