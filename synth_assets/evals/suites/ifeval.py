"""IFEval (Zhou et al. 2023, arXiv 2311.07911): verifiable instructions; lm-eval's task, as a chat."""

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
    "instruction_id_list": Field("a list of instruction names", is_list_of(is_text)),
    "kwargs": Field("a list of objects, one for each instruction", is_list_of(lambda value: isinstance(value, dict))),
}


def check(located: Located) -> None:
    """Raise ValueError if there are not as many arguments as instructions."""
    document = located.document
    count = len(document["instruction_id_list"])
    if len(document["kwargs"]) != count:
        raise field_error(located.where, "kwargs", f"{count} objects", document["kwargs"])


SOURCE = Source(  # the only split
    "ifeval.jsonl", "google/IFEval", "", "train", FIELDS, check=check, unique="key"
)
METRICS = {"strict": "prompt_level_strict_acc", "loose": "prompt_level_loose_acc"}


def items(folder: Path | None = None) -> list[Item]:
    """Return all prompts.

    Raises:
        ModuleNotFoundError: the packages of lm-eval's verifiers are not installed.
    """
    _verifiers()
    return SOURCE.items(NAME, folder, prompt=lambda d: d["prompt"])


def score(item: Item, response: str) -> dict[str, float | None]:
    """Score 1 if all instructions of the prompt are followed; `loose` ignores the first or last line and asterisks."""
    verify = _verifiers()
    results = verify.process_results(json.loads(item.answer), [response])
    return {metric: float(results[name]) for metric, name in METRICS.items()}


def _verifiers() -> ModuleType:
    try:
        from lm_eval.tasks.ifeval import utils
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"suite {NAME} needs {error.name}: run pip install 'lm-eval[ifeval]'", name=error.name
        ) from error
    return utils


SUITE = Suite(
    name=NAME,
    kind="harness",
    metrics=tuple(METRICS),
    items=items,
    score=score,
    task=HarnessTask(
        lambda item: "ifeval/ifeval.yaml", {metric: (name, "none") for metric, name in METRICS.items()}, generates=True
    ),
    files=SOURCE.files,
    from_hub=True,
)
