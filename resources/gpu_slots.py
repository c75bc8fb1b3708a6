"""A turn at running a model, for what is no step of the pool and for a step that runs a model only at times."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from resources.dagster_private import InstanceConcurrencyContext
from resources.hardware import GPU_POOL
from resources.run_processes import PROCESS_TAG, is_gone, this_process

POLL_S = 0.5
COMMAND = "synth command "
"""How the holder of a slot begins that is a command's process; runs have their run id there."""


@contextmanager
def gpu_slot(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Hold a slot of the pool of steps that run a model; waits where all are taken.

    A step in that pool waits before it starts. A rollback runs no model and must not wait for a training to end.
    """
    step = f"{context.asset_key.to_user_string()}:model"
    with _slot(context.instance, context.run, step, context.log.info):
        yield


@contextmanager
def command_gpu_slot(instance: dg.DagsterInstance, command: str, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold a slot of the same pool while a command of this process runs a model; waits where all are taken.

    Slots of commands whose process was killed are freed first.
    """
    free_dead_commands(instance)
    holder = dg.DagsterRun(job_name=command, run_id=COMMAND + this_process())
    with _slot(instance, holder, command, progress):
        yield


def free_dead_commands(instance: dg.DagsterInstance) -> None:
    """Free the slots that commands of this machine hold whose process is gone."""
    storage = instance.event_log_storage
    info = storage.get_concurrency_info(GPU_POOL)
    holders = {slot.run_id for slot in info.claimed_slots} | {step.run_id for step in info.pending_steps}
    for holder in holders:
        if not holder.startswith(COMMAND):
            continue
        process = holder.removeprefix(COMMAND)
        if is_gone(dg.DagsterRun(job_name=COMMAND, tags={PROCESS_TAG: process})):
            storage.free_concurrency_slots_for_run(holder)


@contextmanager
def _slot(
    instance: dg.DagsterInstance, run: dg.DagsterRun, step: str, progress: Callable[[str], None]
) -> Iterator[None]:
    with InstanceConcurrencyContext(instance, run) as slots:
        if not slots.claim(GPU_POOL, step):
            progress("all slots for steps that run a model are taken: waiting for one")
            while not slots.claim(GPU_POOL, step):
                time.sleep(POLL_S)
        try:
            yield
        finally:
            slots.free_step(step)
