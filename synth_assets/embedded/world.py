"""The embedded world: an enumerable set of instructions, each with its correct answer and plausible wrong ones.

A task's `key` is its instruction without the formatting constraint. Tasks are split by a hash of the key, so a question
is in one split only, whatever its constraint. A fact can be in several splits with different wordings.
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
    """Return all tasks by instruction, in a fixed order."""
    return MappingProxyType({task.instruction: task for family in FAMILIES for task in family()})


def find(instruction: str) -> Task | None:
    """Return the task with exactly this instruction, or None if there is none."""
    return catalogue().get(instruction)


@cache
def tasks(split: str) -> tuple[Task, ...]:
    """Return the tasks of `train`, `validation` or `test`, in a fixed order.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    return tuple(task for task in catalogue().values() if split_of(task.key) == split)
