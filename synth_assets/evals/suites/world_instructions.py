"""Instructions about the mini world; a program verifies content and form of the generated answer."""

from collections.abc import Mapping
from pathlib import Path

from synth_assets.embedded import items as world_items
from synth_assets.embedded import verifier, world
from synth_assets.embedded.task import Task
from synth_assets.evals.suite import SEALED, SPLITS, Item, Suite

NAME = "world_instructions"


def items(folder: Path | None = None) -> list[Item]:
    """Return instructions that no training row may contain. Items that ask the same question form a cluster."""
    by_split = {**{split: world_items.generation_items(split) for split in SPLITS}, SEALED: sealed_instructions()}
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
        for split, instructions in by_split.items()
        for number, item in enumerate(instructions)
    ]


def sealed_instructions() -> list[world_items.GenerationItem]:
    """Return the held-out instructions that are not validation items: nothing but the sealed split uses them."""
    validation_keys = {item.key for item in world_items.generation_items("validation")}
    held_out = world_items.generation_items("validation", limit=len(world.catalogue()))
    return [item for item in held_out if item.key not in validation_keys]


def score(item: Item, response: str) -> Mapping[str, float | None]:
    """Return `strict`: right content in the requested form and nothing else, and `lenient`: right content."""
    verdict = verifier.verify(_task(item.prompt), response)
    return {"strict": float(verdict.strict), "lenient": float(verdict.lenient)}


def _task(instruction: str) -> Task:
    task = world.find(instruction)
    if task is None:
        raise ValueError(f"{NAME}: the mini world has no instruction {instruction!r}")
    return task


SUITE = Suite(name=NAME, kind="generation", metrics=("strict", "lenient"), items=items, score=score)
