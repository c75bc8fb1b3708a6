"""Benchmark items of the embedded world, deterministic: instructions, and questions with four choices."""

import hashlib
from dataclasses import dataclass
from random import Random

from synth_assets.embedded.answers import state
from synth_assets.embedded.task import Task
from synth_assets.embedded.world import tasks

CHOICES = 4
GENERATION_LIMIT = 680


@dataclass(frozen=True)
class GenerationItem:
    """An instruction that `verifier.verify` grades; items with the same `key` form a cluster."""

    instruction: str
    key: str
    group: str


@dataclass(frozen=True)
class ChoiceItem:
    """A question with four answers in full sentences; the one at index `answer` is correct."""

    question: str
    choices: tuple[str, ...]
    answer: int
    key: str
    group: str


def generation_items(split: str, *, limit: int = GENERATION_LIMIT) -> list[GenerationItem]:
    """Return at most `limit` items of `validation` or `test`.

    A lower limit returns a prefix of the same list. Clusters are ordered by the hashes of their keys; the last one may
    be incomplete.
    """
    ordered = sorted(tasks(_held_out(split)), key=lambda task: (_rank(task.key), task.instruction))
    return [GenerationItem(task.instruction, task.key, task.group) for task in ordered[:limit]]


def choice_items(split: str) -> list[ChoiceItem]:
    """Return the items of `validation` or `test` with three plausible wrong answers, including the common myth."""
    fit = [task for task in tasks(_held_out(split)) if not task.constraint and len(task.wrong_values) >= CHOICES - 1]
    return [_choice_item(task) for task in sorted(fit, key=lambda task: _rank(task.key))]


def _choice_item(task: Task) -> ChoiceItem:
    random = Random(_rank(f"choices of {task.key}"))
    others = [value for value in task.wrong_values if value != task.myth]
    wrong = [task.myth] if task.myth else []
    wrong += random.sample(others, CHOICES - 1 - len(wrong))
    values = [task.value, *wrong]
    random.shuffle(values)
    choices = tuple(state(task, value) for value in values)
    return ChoiceItem(task.instruction, choices, values.index(task.value), task.key, task.group)


def _rank(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _held_out(split: str) -> str:
    if split not in ("validation", "test"):
        raise ValueError(f"no benchmark split {split!r}; there are validation, test")
    return split
