"""ARC (Clark et al. 2018, arXiv 1803.05457): school science with three to five choices; lm-eval's tasks, zero-shot."""

import json
from pathlib import Path

from synth_assets.benchmarks.sources import Source
from synth_assets.benchmarks.suite import HarnessTask, Item, Suite

FIELDS = ("question", "choices", "answerKey")


def arc(name: str, configuration: str) -> Suite:
    """The suite of one of ARC's two sets."""
    source = Source(f"{name}_test.jsonl", "allenai/ai2_arc", configuration, "test", FIELDS)

    def items(folder: Path | None = None) -> list[Item]:
        return source.items(name, folder, prompt=lambda d: d["question"], choices=lambda d: d["choices"]["text"])

    return Suite(
        name=name,
        kind="harness",
        metrics=("acc", "acc_norm"),
        items=items,
        score=score,
        chat=False,
        task=HarnessTask(lambda item: f"arc/{name}.yaml", {"acc": ("acc", "none"), "acc_norm": ("acc_norm", "none")}),
        guards={"acc": "knowledge"},
    )


def score(item: Item, response: str) -> dict[str, float | None]:
    """Whether an answer is the right choice's text."""
    document = json.loads(item.answer)
    right = item.choices[document["choices"]["label"].index(document["answerKey"])]
    return dict.fromkeys(("acc", "acc_norm"), float(response.strip() == right))


SUITE = arc("arc_easy", "ARC-Easy")
