"""The mini world: every instruction that it knows, enumerable, each with its right answer and plausible wrong ones.

A task's `key` is its instruction without the formatting constraint. Tasks are split by a hash of that key, so that one
question never stands in two splits under two constraints; one fact does stand in two splits under two wordings.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from synth_assets.embedded.families import FAMILIES
from synth_assets.embedded.task import Task

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = {"test": 0.12, "validation": 0.12}


def split_of(key: str) -> str:
    """Return the split of a key, by the first 8 bytes of its SHA-256."""
    position = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    edge = 0.0
    for split, share in HELD_OUT_SHARE.items():
        edge += share
        if position < edge:
            return split
    return "train"


@cache
def catalogue() -> Mapping[str, Task]:
    """Return every task by its instruction, in a fixed order."""
    return MappingProxyType({task.instruction: task for family in FAMILIES for task in family()})


def find(instruction: str) -> Task | None:
    """Return the task with exactly this instruction, or None where the world does not know it."""
    return catalogue().get(instruction)


@cache
def tasks(split: str) -> tuple[Task, ...]:
    """Return the tasks of `train`, `validation` or `test`, in a fixed order.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    return tuple(task for task in catalogue().values() if split_of(task.key) == split)
