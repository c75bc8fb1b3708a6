"""A backfill of n batches makes n batches and runs the rest of the job once.

Dagster starts a run of the whole job for each partition of a backfill. The assets without partitions read all
partitions, so that only the last of these runs has to make them; the others stop after their own partition.
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

MADE_TAG = "synth/partition_made"


def steps_of_this_run(context: PlanOrchestrationContext, plan: ExecutionPlan) -> ExecutionPlan:
    """Return the whole plan, or its partitioned part where later runs of the same backfill make the rest.

    Call it while this run holds its turn: which run is the last is decided by the runs that ended before.
    """
    run, instance = context.dagster_run, context.instance
    waiting = partitions_to_come(instance, run)
    if not waiting:
        return plan
    job = context.job.get_definition()
    part = partitioned_steps(plan, job)
    if not 0 < len(part) < len(plan.step_keys_to_execute):
        return plan
    context.log.info(
        f"run: {run.tags[PARTITION_NAME_TAG]} alone; the last run of this backfill makes the rest of {job.name} from "
        f"all partitions ({len(waiting)} to come)"
    )
    return plan.build_subset_plan(part, job, ResolvedRunConfig.build(job, run.run_config))


def mark_partition_made(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Note that a run of a backfill is over, before it gives up its turn; its status follows a moment later."""
    if BACKFILL_ID_TAG in run.tags:
        instance.add_run_tags(run.run_id, {MADE_TAG: run.tags.get(PARTITION_NAME_TAG, "")})


def partitions_to_come(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """Return the partitions of this run's job backfill that no run has ended with yet, its own left out."""
    backfill_id, own = run.tags.get(BACKFILL_ID_TAG), run.tags.get(PARTITION_NAME_TAG)
    backfill = instance.get_backfill(backfill_id) if backfill_id and own else None
    if backfill is None or backfill.is_asset_backfill or not backfill.partition_names:
        return []
    runs = instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id}))
    over = {other.tags.get(PARTITION_NAME_TAG) for other in runs if other.is_finished or MADE_TAG in other.tags}
    return [name for name in backfill.partition_names if name not in over and name != own]


def partitioned_steps(plan: ExecutionPlan, job: dg.JobDefinition) -> list[str]:
    """Return the steps that make or check partitioned assets, and all that these need, in the plan's order."""
    graph, layer = job.asset_layer.asset_graph, job.asset_layer
    chosen: set[str] = set()
    pending = []
    for key in plan.step_keys_to_execute:
        entities = layer.get_selected_entity_keys_for_node(plan.get_step_by_key(key).node_handle)
        assets = {entity if isinstance(entity, dg.AssetKey) else entity.asset_key for entity in entities}
        if any(graph.get(asset).is_partitioned for asset in assets):
            pending.append(key)
    while pending:
        key = pending.pop()
        if key not in chosen:
            chosen.add(key)
            step = plan.get_step_by_key(key)
            needed = step.get_execution_dependency_keys() if isinstance(step, ExecutionStep) else set()
            pending += [dependency for dependency in needed if dependency in plan.step_keys_to_execute]
    return [key for key in plan.step_keys_to_execute if key in chosen]
