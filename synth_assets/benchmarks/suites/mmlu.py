"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): 57 subjects, four choices, lm-eval's task `mmlu`, zero-shot."""

import json
from pathlib import Path

from synth_assets.benchmarks.sources import Document, Source, read_csv
from synth_assets.benchmarks.suite import HarnessTask, Item, Suite

NAME = "mmlu"
LETTERS = "ABCD"


def read_subject(path: Path) -> list[Document]:
    """Documents of `<subject>_test.csv`: question, four choices, the answer as letter or index; a header may lead."""
    subject, found = path.stem.removesuffix("_test"), []
    for number, row in enumerate(read_csv(path), 1):
        if len(row) != 6:
            raise ValueError(f"{path}, row {number}: wanted question, four choices and answer, found {len(row)} cells")
        question, *choices, answer = row
        if answer.strip().lower() == "answer":
            continue
        if answer not in (*LETTERS, *"0123"):
            raise ValueError(f"{path}, row {number}: the answer is {answer!r}, neither A to D nor 0 to 3")
        index = LETTERS.index(answer) if answer in LETTERS else int(answer)
        found.append({"question": question, "subject": subject, "choices": choices, "answer": index})
    return found


SOURCE = Source(
    "mmlu/*_test.csv", "cais/mmlu", "all", "test", ("question", "subject", "choices", "answer"), read_subject
)


def items(folder: Path | None = None) -> list[Item]:
    """All questions of the test split."""
    return SOURCE.items(NAME, folder, prompt=lambda d: d["question"], choices=lambda d: d["choices"])


def score(item: Item, response: str) -> dict[str, float | None]:
    """Whether an answer is the right letter or the right choice's text."""
    right = json.loads(item.answer)["answer"]
    return {"acc": float(response.strip() in (LETTERS[right], item.choices[right]))}


def definition(item: Item) -> str:
    """The task of the item's subject, with its description."""
    return f"mmlu/default/mmlu_{json.loads(item.answer)['subject']}.yaml"


SUITE = Suite(
    name=NAME,
    kind="harness",
    metrics=("acc",),
    items=items,
    score=score,
    chat=False,
    task=HarnessTask(definition, {"acc": ("acc", "none")}),
    guards={"acc": "knowledge"},
)
