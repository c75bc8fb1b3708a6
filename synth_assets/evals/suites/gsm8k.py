"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): math word problems; lm-eval's task, zero-shot, as a chat."""

import json
import re
from pathlib import Path

from synth_assets.evals.documents import TEXT, Field
from synth_assets.evals.sources import Source
from synth_assets.evals.suite import HarnessTask, Item, Suite

NAME = "gsm8k"
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")  # both as in lm-eval's gsm8k.yaml
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = re.compile(r",|\$|(?s:.*#### )|\.$")
FIELDS = {
    "question": TEXT,
    "answer": Field(
        'text with its result after "#### "', lambda value: isinstance(value, str) and bool(STRICT.search(value))
    ),
}
SOURCE = Source("gsm8k_test.jsonl", "openai/gsm8k", "main", "test", FIELDS)


def items(folder: Path | None = None) -> list[Item]:
    """Return all problems of the test split."""
    return SOURCE.items(NAME, folder, prompt=lambda d: d["question"])


def score(item: Item, response: str) -> dict[str, float | None]:
    """Score the number after "####" (strict) and the last number of the response (flexible)."""
    right = _plain(json.loads(item.answer)["answer"])
    strict = STRICT.search(response)
    numbers = [next(group for group in match if group) for match in FLEXIBLE.findall(response)]
    return {
        "flexible": float(bool(numbers) and _plain(numbers[-1]) == right),
        "strict": float(strict is not None and _plain(strict[1]) == right),
    }


def _plain(number: str) -> str:
    return IGNORED.sub("", number).lower()


SUITE = Suite(
    name=NAME,
    kind="harness",
    metrics=("flexible", "strict"),
    items=items,
    score=score,
    task=HarnessTask(
        lambda item: "gsm8k/gsm8k.yaml",
        {"flexible": ("exact_match", "flexible-extract"), "strict": ("exact_match", "strict-match")},
        generates=True,
    ),
    files=SOURCE.files,
    from_hub=True,
)
