"""TruthfulQA (Lin et al. 2022, arXiv 2109.07958): probability on the true answers; lm-eval's `truthfulqa_mc2`."""

import json
from pathlib import Path

from synth_assets.benchmarks.sources import Document, Source, read_csv
from synth_assets.benchmarks.suite import HarnessTask, Item, Suite

NAME = "truthfulqa_mc2"
COLUMNS = ("Question", "Correct Answers", "Incorrect Answers")


def read_published(path: Path) -> list[Document]:
    """Documents of the authors' TruthfulQA.csv: all true answers, then all false ones, without their final stops.

    The hub's `multiple_choice` set has the same questions with curated answers: scores from the two differ a little.
    """
    header, *rows = read_csv(path)
    if missing := [name for name in COLUMNS if name not in header]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}")
    found = []
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        true, false = (_answers(cells[f"{kind} Answers"]) for kind in ("Correct", "Incorrect"))
        labels = [1] * len(true) + [0] * len(false)
        found.append({"question": cells["Question"], "mc2_targets": {"choices": [*true, *false], "labels": labels}})
    return found


FIELDS = ("question", "mc2_targets")
SOURCE = Source("truthfulqa.csv", "truthfulqa/truthful_qa", "multiple_choice", "validation", FIELDS, read_published)


def items(folder: Path | None = None) -> list[Item]:
    """All questions."""
    return SOURCE.items(NAME, folder, prompt=lambda d: d["question"], choices=lambda d: d["mc2_targets"]["choices"])


def score(item: Item, response: str) -> dict[str, float | None]:
    """The share of true answers: what a model gets that finds all answers equally likely, whatever it says."""
    labels = json.loads(item.answer)["mc2_targets"]["labels"]
    return {"mc2": sum(labels) / len(labels)}


def _answers(cell: str) -> list[str]:
    return list(dict.fromkeys(answer.strip() for answer in cell.split(";") if answer.strip()))


SUITE = Suite(
    name=NAME,
    kind="harness",
    metrics=("mc2",),
    items=items,
    score=score,
    chat=False,
    task=HarnessTask(lambda item: "truthfulqa/truthfulqa_mc2.yaml", {"mc2": ("acc", "none")}),
    guards={"mc2": "knowledge"},
)
