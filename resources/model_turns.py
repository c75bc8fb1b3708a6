"""A turn at running a model, for a step that needs one only at times and must not wait for one otherwise."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

from resources.hardware import GPU_POOL

POLL_S = 0.5


@contextmanager
def model_turn(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Hold a slot of the pool of steps that run a model; waits where all are taken.

    A step in that pool waits before it starts. A rollback runs no model and must not wait for a training to end.
    """
    step = f"{context.asset_key.to_user_string()}:model"
    with InstanceConcurrencyContext(context.instance, context.run) as slots:
        if not slots.claim(GPU_POOL, step):
            context.log.info("all slots for steps that run a model are taken: waiting for one")
            while not slots.claim(GPU_POOL, step):
                time.sleep(POLL_S)
        try:
            yield
        finally:
            slots.free_step(step)
