"""ARC (Clark et al. 2018, arXiv 1803.05457): school science, three to five choices; lm-eval's tasks, zero-shot."""

import json
from pathlib import Path

from synth_assets.evals.documents import TEXT, Field, Located, field_error, is_list_of, is_text
from synth_assets.evals.sources import Source
from synth_assets.evals.suite import HarnessTask, Item, Suite


def _is_choices(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"text", "label"}:
        return False
    texts, labels = value["text"], value["label"]
    valid = is_list_of(is_text, 2)(texts) and is_list_of(is_text, 2)(labels)
    return valid and len(texts) == len(labels) == len(set(labels))


FIELDS = {
    "id": TEXT.optional(),
    "question": TEXT,
    "choices": Field("an object with text and label, two lists of the same length", _is_choices),
    "answerKey": TEXT,
}


def check(located: Located) -> None:
    """Raise ValueError if the answer is not the label of a choice."""
    document = located.document
    if document["answerKey"] not in document["choices"]["label"]:
        labels = ", ".join(document["choices"]["label"])
        raise field_error(located.where, "answerKey", f"one of the labels {labels}", document["answerKey"])


def arc(name: str, configuration: str) -> Suite:
    """Return the suite of an ARC configuration."""
    files = f"{name}_test.jsonl"
    source = Source(files, "allenai/ai2_arc", configuration, "test", FIELDS, check=check, unique="id")

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
        files=source.files,
        from_hub=True,
    )


def score(item: Item, response: str) -> dict[str, float | None]:
    """Score 1 if the answer is the text of the right choice, else 0."""
    document = json.loads(item.answer)
    right = item.choices[document["choices"]["label"].index(document["answerKey"])]
    return dict.fromkeys(("acc", "acc_norm"), float(response.strip() == right))


SUITE = arc("arc_easy", "ARC-Easy")
