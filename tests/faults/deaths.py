"""Run two steps that end as requested: `python deaths.py HOW`, HOW one of live, wait, die_once, die, raise.

The first step takes the only slot of the pool `gpu`. Each attempt appends its process id to SYNTH_HOME/attempts.
"""

import os
import signal
import sys
import time
from pathlib import Path

import dagster as dg

from resources.deployment import home_folder, set_up_process, write_instance_settings
from resources.hardware import GPU_POOL
from resources.run_processes import close_dead_runs
from synth_assets.cli.run import run_tags
from synth_assets.orchestration.jobs import executor_for

ATTEMPTS = "attempts"


class FateConfig(dg.Config):
    how: str


@dg.asset(pool=GPU_POOL)
def fated(config: FateConfig) -> None:
    file = home_folder() / ATTEMPTS
    earlier = attempts(file)
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    if config.how == "wait":
        time.sleep(300)
    if config.how == "die" or (config.how == "die_once" and not earlier):
        os.kill(os.getpid(), signal.SIGKILL)
    if config.how == "raise":
        raise ValueError("this data is wrong")


@dg.asset(deps=[fated])
def after() -> None:
    (home_folder() / "after").touch()


def attempts(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def job() -> dg.JobDefinition:
    chain = dg.define_asset_job("chain", selection=dg.AssetSelection.all())
    return dg.Definitions([fated, after], jobs=[chain], executor=executor_for("cuda")).resolve_job_def("chain")


if __name__ == "__main__":
    set_up_process(home_folder(), "cpu")
    write_instance_settings(home_folder())
    with dg.DagsterInstance.get() as instance:
        close_dead_runs(instance)
        config = {"ops": {"fated": {"config": {"how": sys.argv[1]}}}}
        tags = run_tags("b", "cpu")
        result = dg.execute_job(dg.reconstructable(job), instance=instance, run_config=config, tags=tags)
        sys.exit(0 if result.success else 1)
