"""IFEval (Zhou et al. 2023, arXiv 2311.07911): instructions that programs verify; lm-eval's task, as a chat."""

import json
from pathlib import Path
from types import ModuleType

from synth_assets.evals.documents import TEXT, WHOLE_NUMBER, Field, Located, field_error, is_list_of, is_text
from synth_assets.evals.sources import Source
from synth_assets.evals.suite import HarnessTask, Item, Suite

NAME = "ifeval"
FIELDS = {
    "key": WHOLE_NUMBER,
    "prompt": TEXT,
    "instruction_id_list": Field("a list of names of instructions", is_list_of(is_text)),
    "kwargs": Field("a list of objects, one for each instruction", is_list_of(lambda value: isinstance(value, dict))),
}


def check(located: Located) -> None:
    """Raise ValueError where there are not as many arguments as instructions."""
    document = located.document
    count = len(document["instruction_id_list"])
    if len(document["kwargs"]) != count:
        raise field_error(located.where, "kwargs", f"{count} objects", document["kwargs"])


SOURCE = Source(  # the only split there is
    "ifeval.jsonl", "google/IFEval", "", "train", FIELDS, check=check, unique="key"
)
METRICS = {"strict": "prompt_level_strict_acc", "loose": "prompt_level_loose_acc"}


def items(folder: Path | None = None) -> list[Item]:
    """All prompts.

    Raises:
        ModuleNotFoundError: the packages of lm-eval's verifiers are not installed.
    """
    _verifiers()
    return SOURCE.items(NAME, folder, prompt=lambda d: d["prompt"])


def score(item: Item, response: str) -> dict[str, float | None]:
    """Whether all instructions of the prompt are followed; `loose` forgives a first or last line and asterisks."""
    verify = _verifiers()
    found = verify.process_results(json.loads(item.answer), [response])
    return {own: float(found[name]) for own, name in METRICS.items()}


def _verifiers() -> ModuleType:
    try:
        from lm_eval.tasks.ifeval import utils
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"suite {NAME} needs {error.name}: install it with pip install 'lm-eval[ifeval]'", name=error.name
        ) from error
    return utils


SUITE = Suite(
    name=NAME,
    kind="harness",
    metrics=tuple(METRICS),
    items=items,
    score=score,
    task=HarnessTask(
        lambda item: "ifeval/ifeval.yaml", {own: (name, "none") for own, name in METRICS.items()}, generates=True
    ),
    files=SOURCE.files,
    from_hub=True,
)
