"""Claim a slot of the GPU pool from inside a step, for steps that only sometimes load a model, and from commands."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from resources.dagster_private import InstanceConcurrencyContext
from resources.hardware import GPU_POOL
from resources.run_processes import PROCESS_TAG, is_gone, this_process

POLL_S = 0.5
COMMAND = "synth command "
"""Prefix of the slot holder of a command's process; the holder of a run is its run id."""


@contextmanager
def gpu_slot(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Hold a slot of the GPU pool; wait if all are taken.

    A step assigned to the pool waits before it starts. This is for steps that may not need a model, such as a rollback.
    """
    step = f"{context.asset_key.to_user_string()}:model"
    with _slot(context.instance, context.run, step, context.log.info):
        yield


@contextmanager
def command_gpu_slot(instance: dg.DagsterInstance, command: str, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold a slot of the GPU pool while a command runs a model; wait if all are taken.

    Frees the slots of killed commands first.
    """
    free_dead_commands(instance)
    holder = dg.DagsterRun(job_name=command, run_id=COMMAND + this_process())
    with _slot(instance, holder, command, progress):
        yield


def free_dead_commands(instance: dg.DagsterInstance) -> None:
    """Free the slots of commands on this machine whose process is gone."""
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
            progress("waiting for a slot of the GPU pool: all are taken")
            while not slots.claim(GPU_POOL, step):
                time.sleep(POLL_S)
        try:
            yield
        finally:
            slots.free_step(step)
