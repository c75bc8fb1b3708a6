"""TruthfulQA (Lin et al. 2022, arXiv 2109.07958): probability on the true answers; lm-eval's `truthfulqa_mc2`."""

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
ANSWERS = Field("answers with a semicolon between them", lambda value: isinstance(value, str) and bool(_answers(value)))
COLUMNS = {
    "Question": TEXT,
    "Correct Answers": ANSWERS,
    "Incorrect Answers": ANSWERS,
    **dict.fromkeys(("Type", "Category", "Source", "Best Answer", "Best Incorrect Answer"), ANYTHING),
}


def read_published(path: Path) -> list[Located]:
    """Documents of the authors' TruthfulQA.csv: all true answers, then all false ones, without their final stops.

    The hub's `multiple_choice` set has the same questions with curated answers: scores from the two differ a little.
    """
    rows = csv_documents(path)
    check_unique(rows, "Question")
    found = []
    for located in rows:
        check_fields(located, COLUMNS)
        cells = located.document
        true, false = (_answers(cells[f"{kind} Answers"]) for kind in ("Correct", "Incorrect"))
        labels = [1] * len(true) + [0] * len(false)
        document = {"question": cells["Question"], "mc2_targets": {"choices": [*true, *false], "labels": labels}}
        found.append(Located(located.where, document))
    return found


def _is_targets(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"choices", "labels"}:
        return False
    choices, labels = value["choices"], value["labels"]
    return is_list_of(is_text, 2)(choices) and len(choices) == len(labels) and set(labels) == {0, 1}


FIELDS = {
    "question": TEXT,
    "mc2_targets": Field("as many labels, 1 and 0, as choices, of both kinds at least one", _is_targets),
}
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
    files=SOURCE.files,
    from_hub=True,
)
