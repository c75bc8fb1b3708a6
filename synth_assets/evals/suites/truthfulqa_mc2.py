"""TruthfulQA (Lin et al. 2022, arXiv 2109.07958): probability of the true answers; lm-eval's `truthfulqa_mc2`."""

import json
from pathlib import Path

from synth_assets.evals.documents import (
    ANYTHING,
    TEXT,
    Field,
    Located,
    check_fields,
    check_unique,
    csv_documents,
    is_list_of,
    is_text,
)
from synth_assets.evals.sources import Source
from synth_assets.evals.suite import HarnessTask, Item, Suite

NAME = "truthfulqa_mc2"
ANSWERS = Field("answers separated by semicolons", lambda value: isinstance(value, str) and bool(_answers(value)))
COLUMNS = {
    "Question": TEXT,
    "Correct Answers": ANSWERS,
    "Incorrect Answers": ANSWERS,
    **dict.fromkeys(("Type", "Category", "Source", "Best Answer", "Best Incorrect Answer"), ANYTHING),
}


def read_published(path: Path) -> list[Located]:
    """Read the authors' TruthfulQA.csv: all true answers, then all false ones, without final stops.

    The hub's `multiple_choice` configuration has curated answers to the same questions, so scores differ slightly.
    """
    rows = csv_documents(path)
    check_unique(rows, "Question")
    documents = []
    for located in rows:
        check_fields(located, COLUMNS)
        cells = located.document
        true, false = (_answers(cells[f"{kind} Answers"]) for kind in ("Correct", "Incorrect"))
        labels = [1] * len(true) + [0] * len(false)
        document = {"question": cells["Question"], "mc2_targets": {"choices": [*true, *false], "labels": labels}}
        documents.append(Located(located.where, document))
    return documents


def _is_targets(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"choices", "labels"}:
        return False
    choices, labels = value["choices"], value["labels"]
    return is_list_of(is_text, 2)(choices) and len(choices) == len(labels) and set(labels) == {0, 1}


FIELDS = {
    "question": TEXT,
    "mc2_targets": Field("one label per choice, 1 or 0, with at least one of each", _is_targets),
}
SOURCE = Source("truthfulqa.csv", "truthfulqa/truthful_qa", "multiple_choice", "validation", FIELDS, read_published)


def items(folder: Path | None = None) -> list[Item]:
    """Return all questions."""
    return SOURCE.items(NAME, folder, prompt=lambda d: d["question"], choices=lambda d: d["mc2_targets"]["choices"])


def score(item: Item, response: str) -> dict[str, float | None]:
    """Return the share of true answers: the score of a model that rates all answers equally."""
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
    files=SOURCE.files,
    from_hub=True,
)
