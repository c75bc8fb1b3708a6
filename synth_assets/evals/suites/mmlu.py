"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): 57 subjects, four choices; lm-eval's task, zero-shot."""

import json
from pathlib import Path

from synth_assets.evals.documents import (
    ANY_TEXT,
    TEXT,
    Field,
    Located,
    check_fields,
    csv_documents,
    is_list_of,
    is_whole,
)
from synth_assets.evals.sources import Source
from synth_assets.evals.suite import HarnessTask, Item, Suite

NAME = "mmlu"
LETTERS = "ABCD"


COLUMNS = {
    "question": TEXT,
    **dict.fromkeys(LETTERS, ANY_TEXT),
    "answer": Field("A to D, or 0 to 3", lambda value: value in (*LETTERS, *"0123")),
}
FIELDS = {
    "question": TEXT,
    "subject": TEXT,
    "choices": Field(
        "a list of four texts",
        lambda value: len(value) == len(LETTERS) and is_list_of(ANY_TEXT.accepts)(value),
    ),
    "answer": Field("a whole number from 0 to 3", lambda value: is_whole(value) and 0 <= value < len(LETTERS)),
}


def read_subject(path: Path) -> list[Located]:
    """Read `<subject>_test.csv`: question, four choices, the answer as letter or index; the header is optional.

    Questions may repeat, as some of the published ones do.
    """
    subject = path.stem.removesuffix("_test")
    rows = csv_documents(path, tuple(COLUMNS))
    if rows and str(rows[0].document["answer"]).strip().lower() == "answer":
        rows = rows[1:]
    documents = []
    for located in rows:
        check_fields(located, COLUMNS)
        cells = located.document
        answer = cells["answer"]
        index = LETTERS.index(answer) if answer in LETTERS else int(answer)
        choices = [cells[letter] for letter in LETTERS]
        document = {"question": cells["question"], "subject": subject, "choices": choices, "answer": index}
        documents.append(Located(located.where, document))
    return documents


SOURCE = Source("mmlu/*_test.csv", "cais/mmlu", "all", "test", FIELDS, read_subject)


def items(folder: Path | None = None) -> list[Item]:
    """Return all questions of the test split."""
    return SOURCE.items(NAME, folder, prompt=lambda d: d["question"], choices=lambda d: d["choices"])


def score(item: Item, response: str) -> dict[str, float | None]:
    """Score 1 if the answer is the right letter or the text of the right choice, else 0."""
    right = json.loads(item.answer)["answer"]
    return {"acc": float(response.strip() in (LETTERS[right], item.choices[right]))}


def definition(item: Item) -> str:
    """Return the lm-eval task of the item's subject."""
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
    files=SOURCE.files,
    from_hub=True,
)
