"""HellaSwag (Zellers et al. 2019, arXiv 1905.07830): sentence completion; lm-eval's task, zero-shot."""

import json
from pathlib import Path

from synth_assets.evals.documents import ANY_TEXT, ANYTHING, TEXT, Field, Located, field_error, is_list_of, is_text
from synth_assets.evals.sources import Source
from synth_assets.evals.suite import HarnessTask, Item, Suite

NAME = "hellaswag"
FIELDS = {
    "activity_label": TEXT,
    "ctx_a": TEXT,
    "ctx_b": ANY_TEXT,
    "endings": Field("a list of two or more texts", is_list_of(is_text, 2)),
    "label": Field("the number of the true ending, from 0", lambda value: str(value).isdecimal()),
    **dict.fromkeys(("ind", "ctx", "source_id", "split", "split_type"), ANYTHING),
}


def check(located: Located) -> None:
    """Raise ValueError if the label is not the index of an ending."""
    document = located.document
    if int(document["label"]) >= len(document["endings"]):
        raise field_error(located.where, "label", f"0 to {len(document['endings']) - 1}", document["label"])


SOURCE = Source(  # test has no labels
    "hellaswag_validation.jsonl", "Rowan/hellaswag", "", "validation", FIELDS, check=check
)


def items(folder: Path | None = None) -> list[Item]:
    """Return all contexts of the validation split, the split that is usually reported."""
    return SOURCE.items(
        NAME,
        folder,
        prompt=lambda d: f"{d['ctx_a']} {d['ctx_b']}".strip(),
        choices=lambda d: d["endings"],
        cluster=lambda d: str(d.get("source_id", "")),  # one video or article gives several items
    )


def score(item: Item, response: str) -> dict[str, float | None]:
    """Score 1 if the answer is the right ending, else 0."""
    right = item.choices[int(json.loads(item.answer)["label"])]
    return dict.fromkeys(("acc", "acc_norm"), float(response.strip() == right.strip()))


SUITE = Suite(
    name=NAME,
    kind="harness",
    metrics=("acc", "acc_norm"),
    items=items,
    score=score,
    chat=False,
    task=HarnessTask(
        lambda item: "hellaswag/hellaswag.yaml", {"acc": ("acc", "none"), "acc_norm": ("acc_norm", "none")}
    ),
    guards={"acc": "knowledge"},
    files=SOURCE.files,
    from_hub=True,
)
