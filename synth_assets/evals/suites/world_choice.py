"""Four-choice questions about the mini world, scored by log-likelihood with lm-eval."""

from pathlib import Path

from synth_assets.embedded import items as world_items
from synth_assets.evals.suite import SPLITS, Item, Suite, choice_score
from synth_assets.evals.suites.world_instructions import sealed_instructions

NAME = "world_choice"


def items(folder: Path | None = None) -> list[Item]:
    """Return questions with one right and three plausible wrong answers, without those that are sealed instructions."""
    sealed = {item.key for item in sealed_instructions()}
    return [
        Item(
            item_id=f"{NAME}/{split}/{number:04}",
            suite=NAME,
            split=split,
            kind="choice",
            prompt=item.question,
            answer=str(item.answer),
            cluster=item.key,
            choices=item.choices,
        )
        for split in SPLITS
        for number, item in enumerate(world_items.choice_items(split))
        if item.key not in sealed
    ]


SUITE = Suite(name=NAME, kind="choice", metrics=("acc",), items=items, score=choice_score, guards={"acc": "knowledge"})
