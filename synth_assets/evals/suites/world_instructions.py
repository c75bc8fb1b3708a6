"""The mini world's instructions: the model writes, and a program verifies content and form."""

from collections.abc import Mapping
from pathlib import Path

from synth_assets.embedded import items as world_items
from synth_assets.embedded import verifier, world
from synth_assets.embedded.task import Task
from synth_assets.evals.suite import SEALED, SPLITS, Item, Suite

NAME = "world_instructions"


def items(folder: Path | None = None) -> list[Item]:
    """Instructions that no training row may contain; those that ask the same thing are one cluster."""
    drawn = {**{split: world_items.generation_items(split) for split in SPLITS}, SEALED: sealed_instructions()}
    return [
        Item(
            item_id=f"{NAME}/{split}/{number:04}",
            suite=NAME,
            split=split,
            kind="generation",
            prompt=item.instruction,
            answer=_task(item.instruction).value,
            cluster=item.key,
        )
        for split, found in drawn.items()
        for number, item in enumerate(found)
    ]


def sealed_instructions() -> list[world_items.GenerationItem]:
    """What the world holds out for validation and the validation items leave: nothing else ever asks it."""
    shown = {item.key for item in world_items.generation_items("validation")}
    held_out = world_items.generation_items("validation", limit=len(world.catalogue()))
    return [item for item in held_out if item.key not in shown]


def score(item: Item, response: str) -> Mapping[str, float | None]:
    """`strict`: right content in the form asked for and nothing more; `lenient`: right content."""
    verdict = verifier.verify(_task(item.prompt), response)
    return {"strict": float(verdict.strict), "lenient": float(verdict.lenient)}


def _task(instruction: str) -> Task:
    task = world.find(instruction)
    if task is None:
        raise ValueError(f"{NAME}: the mini world does not know the instruction {instruction!r}")
    return task


SUITE = Suite(name=NAME, kind="generation", metrics=("strict", "lenient"), items=items, score=score)
