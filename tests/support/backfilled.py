"""Run a small job with the structure of the pipeline once for each batch of a backfill: `python backfilled.py`.

Each step appends a line with its batch and name to SYNTH_HOME/steps.
"""

import sys

import dagster as dg

from resources.dagster_private import BACKFILL_ID_TAG, add_partition_backfill
from resources.deployment import home_folder, set_up_process, write_instance_settings
from resources.partitions import BATCHES, BATCHES_NAME
from resources.storage import AssetStorage, SynthHome
from synth_assets.orchestration.jobs import executor_for
from synth_assets.orchestration.run_queue import QUEUED

BACKFILL_BATCHES = ("a", "c")  # not adjacent


def note(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, name: str) -> None:
    with (home_folder() / "steps").open("a") as lines:
        lines.write(f"{context.run.tags['dagster/partition']} {name}\n")


@dg.asset
def teacher(context: dg.AssetExecutionContext) -> None:
    note(context, "teacher")


@dg.asset(partitions_def=BATCHES, deps=[teacher])
def raw(context: dg.AssetExecutionContext) -> None:
    context.instance.add_dynamic_partitions(BATCHES_NAME, [context.partition_key])  # as raw_instructions does
    note(context, "raw")


@dg.asset_check(asset=raw)
def raw_is_good(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    note(context, "check")
    return dg.AssetCheckResult(passed=True)


@dg.asset(deps=[raw])
def trained(context: dg.AssetExecutionContext) -> None:
    note(context, "trained")


def definitions() -> dg.Definitions:
    chain = dg.define_asset_job("chain", selection=dg.AssetSelection.all(), tags=QUEUED)
    storage = AssetStorage(home=SynthHome(folder=str(home_folder())))
    return dg.Definitions(
        [teacher, raw, trained],
        asset_checks=[raw_is_good],
        jobs=[chain],
        executor=executor_for("cuda"),
        resources={"io_manager": storage},
    )


def job() -> dg.JobDefinition:
    return definitions().resolve_job_def("chain")


def main() -> int:
    set_up_process(home_folder(), "cpu")
    write_instance_settings(home_folder())
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(BATCHES_NAME, ["a", "b"])  # the run of c adds c, as a scheduled run does
        add_partition_backfill(instance, "few", BACKFILL_BATCHES)
        succeeded = True
        for batch in BACKFILL_BATCHES:
            tags = {BACKFILL_ID_TAG: "few", "dagster/partition": batch}
            succeeded &= dg.execute_job(dg.reconstructable(job), instance=instance, tags=tags).success
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
