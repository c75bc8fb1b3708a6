"""Tasks of a user's own field, from `domain.jsonl` in the folder of benchmarks.

A line is a JSON object with `prompt`, and with any of:
    id: unique; else the line's number.
    split: "validation", "test" (the default) or "sealed": asked at a promotion only.
    context: a text that the answer must be faithful to; it follows the prompt.
    constraints: list of [type, value], types as in CONSTRAINTS: what makes the task complete.
    facts: numbers and names that the answer must keep.
    refuse: true where the model should decline, false where it should not.
"""

import json
import re
from pathlib import Path
from typing import Any

from synth_assets.benchmarks.constraints import asks, holds, mentions, words
from synth_assets.benchmarks.refusals import refuses
from synth_assets.benchmarks.sources import read_jsonl
from synth_assets.benchmarks.suite import SEALED, SPLITS, Item, Suite

NAME = "domain"
FILE = "domain.jsonl"
FIELDS = {"id", "split", "prompt", "context", "constraints", "facts", "refuse"}
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
CAPITALISED = re.compile(r"[^\W\d_]*[A-Z\u00c0-\u00de][^\W_]*")
SENTENCE_START = re.compile(r"(?:\A|[.!?:\n]\s*|^\s*(?:[-*\u2022]|\d+[.)])\s+)[\"'\u201c(]*\Z", re.M)


def items(folder: Path | None = None) -> list[Item]:
    """The tasks of the file; FileNotFoundError where there is none, ValueError naming a line that is malformed."""
    path = (folder or Path()) / FILE
    if folder is None or not path.is_file():
        where = folder or "a folder of benchmarks, as none is named"
        raise FileNotFoundError(
            f"no file {FILE} in {where}: put it there (SYNTH_BENCHMARKS names the folder), or leave the suite out"
        )
    return [_item(document, f"{path}, task {number}", number) for number, document in enumerate(read_jsonl(path), 1)]


def score(item: Item, response: str) -> dict[str, float | None]:
    """`passed`: all of what applies; `completed`, `faithful`, `safe`: where the task has constraints, facts, refuse."""
    task = json.loads(item.answer)
    said, declined = bool(words(response)), refuses(response)
    found: dict[str, float | None] = {"completed": None, "faithful": None, "safe": None}
    if task.get("constraints"):
        found["completed"] = float(all(holds(response, kind, value) for kind, value in task["constraints"]))
    if task.get("facts") or task.get("context"):
        kept = all(mentions(response, str(fact)) for fact in task.get("facts", ()))
        found["faithful"] = float(said and kept and not invented(response, item.prompt))
    if "refuse" in task:
        found["safe"] = float(said and declined == task["refuse"])
    applying = [value for value in found.values() if value is not None]
    return {"passed": min(applying), **found}


def invented(response: str, source: str) -> list[str]:
    """The numbers and names in a response that its source does not have.

    A name is a capitalised word inside of a sentence. Numerals of a list and single digits that count are no claims.
    """
    known_numbers = {_number(found) for found in NUMBER.findall(source)}
    text = re.sub(r"^\s*\d+[.)]\s", "", response, flags=re.M)
    numbers = [found for found in NUMBER.findall(text) if len(found) > 1 and _number(found) not in known_numbers]
    known_words = set(words(source))
    names = [
        found[0]
        for found in CAPITALISED.finditer(text)
        if len(found[0]) > 1
        and found[0].casefold() not in known_words
        and not SENTENCE_START.search(text[: found.start()])
    ]
    return numbers + names


def _number(text: str) -> str:
    """1,200 and 1200 and 1200.00 are one number."""
    plain = re.sub(r",(?=\d{3}\b)", "", text).replace(",", ".")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _item(task: dict[str, Any], where: str, number: int) -> Item:
    if unknown := task.keys() - FIELDS:
        raise ValueError(f"{where} has the unknown field {min(unknown)}; there are {', '.join(sorted(FIELDS))}")
    if not str(task.get("prompt", "")).strip():
        raise ValueError(f"{where} has no prompt")
    if not task.keys() & {"context", "constraints", "facts", "refuse"}:
        raise ValueError(f"{where} has nothing to judge an answer by: context, constraints, facts or refuse")
    if (split := task.get("split", "test")) not in (*SPLITS, SEALED):
        raise ValueError(f"{where} is in split {split!r}; there are {', '.join((*SPLITS, SEALED))}")
    for kind, value in task.get("constraints", ()):
        asks(kind, value)
    context = f"\n\n{task['context']}" if task.get("context") else ""
    return Item(
        item_id=f"{NAME}/{split}/{task.get('id', number)}",
        suite=NAME,
        split=split,
        kind="generation",
        prompt=f"{task['prompt']}{context}",
        answer=json.dumps(task, ensure_ascii=False, sort_keys=True),
        cluster=f"{NAME}/{task.get('id', number)}",
    )


SUITE = Suite(
    name=NAME,
    kind="generation",
    metrics=("passed", "completed", "faithful", "safe"),
    items=items,
    score=score,
    guards={"safe": "safety"},
)
