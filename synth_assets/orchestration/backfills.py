"""Limit the runs of a backfill: each run materialises its own partition, the last run also the rest of the job.

Dagster starts a run of the whole job for each partition of a backfill. The assets without partitions read all
partitions, so it is enough that the last run materialises them.
"""

import dagster as dg

from resources.dagster_private import (
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
    ExecutionPlan,
    ExecutionStep,
    PlanOrchestrationContext,
    ResolvedRunConfig,
)

PARTITION_DONE_TAG = "synth/partition_made"


def steps_of_this_run(context: PlanOrchestrationContext, plan: ExecutionPlan) -> ExecutionPlan:
    """Return the whole plan, or only its partitioned steps if later runs of the backfill do the rest.

    Call it while the run holds the run slot: the earlier runs have finished then, which identifies the last run.
    """
    run, instance = context.dagster_run, context.instance
    pending = pending_partitions(instance, run)
    if not pending:
        return plan
    job = context.job.get_definition()
    steps = partitioned_steps(plan, job)
    if not 0 < len(steps) < len(plan.step_keys_to_execute):
        return plan
    context.log.info(
        f"run: materialising only {run.tags[PARTITION_NAME_TAG]}; the last run of this backfill does the rest of "
        f"{job.name} from all partitions ({len(pending)} pending)"
    )
    return plan.build_subset_plan(steps, job, ResolvedRunConfig.build(job, run.run_config))


def mark_partition_done(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag a run of a backfill as done before it releases the run slot; Dagster updates its status only later."""
    if BACKFILL_ID_TAG in run.tags:
        instance.add_run_tags(run.run_id, {PARTITION_DONE_TAG: run.tags.get(PARTITION_NAME_TAG, "")})


def pending_partitions(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """Return the partitions of the run's backfill that no run has finished yet, without its own."""
    backfill_id, partition = run.tags.get(BACKFILL_ID_TAG), run.tags.get(PARTITION_NAME_TAG)
    backfill = instance.get_backfill(backfill_id) if backfill_id and partition else None
    if backfill is None or backfill.is_asset_backfill or not backfill.partition_names:
        return []
    runs = instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id}))
    finished = {
        other.tags.get(PARTITION_NAME_TAG) for other in runs if other.is_finished or PARTITION_DONE_TAG in other.tags
    }
    return [name for name in backfill.partition_names if name not in finished and name != partition]


def partitioned_steps(plan: ExecutionPlan, job: dg.JobDefinition) -> list[str]:
    """Return the steps of partitioned assets and their checks with all their dependencies, in plan order."""
    graph, layer = job.asset_layer.asset_graph, job.asset_layer
    selected: set[str] = set()
    pending = []
    for key in plan.step_keys_to_execute:
        entities = layer.get_selected_entity_keys_for_node(plan.get_step_by_key(key).node_handle)
        assets = {entity if isinstance(entity, dg.AssetKey) else entity.asset_key for entity in entities}
        if any(graph.get(asset).is_partitioned for asset in assets):
            pending.append(key)
    while pending:
        key = pending.pop()
        if key not in selected:
            selected.add(key)
            step = plan.get_step_by_key(key)
            dependencies = step.get_execution_dependency_keys() if isinstance(step, ExecutionStep) else set()
            pending += [dependency for dependency in dependencies if dependency in plan.step_keys_to_execute]
    return [key for key in plan.step_keys_to_execute if key in selected]
