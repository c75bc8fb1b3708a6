"""Benchmark suites: items, answer scoring, and null-model baselines."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

from synth_assets.schemas.serialization import fingerprint
from synth_assets.schemas.tables import BENCHMARK_ITEMS

Split = Literal["validation", "test", "sealed"]
SPLITS: tuple[Split, ...] = ("validation", "test")
"""Validation selects the candidate; test is reported for all models."""
SEALED: Split = "sealed"
"""Held-out items for promotion decisions only: never used for selection, tuning or reports."""
Kind = Literal["generation", "choice", "harness"]
KINDS: tuple[Kind, ...] = ("generation", "choice", "harness")


@dataclass(frozen=True)
class Item:
    """A benchmark item. `answer` is the index of the right choice as text, or the input of the suite's verifier.

    For kind "harness", `answer` is lm-eval's document as JSON. For a conversation, `prompt` contains all user turns.
    """

    item_id: str
    suite: str
    split: str
    kind: str
    prompt: str
    answer: str
    cluster: str
    choices: tuple[str, ...] = ()

    @property
    def item_hash(self) -> str:
        """Return a hash of all that a model sees or is scored by; the item's id is not part of it."""
        return fingerprint(self.suite, self.split, self.kind, self.prompt, list(self.choices), self.answer)


class ItemSource(Protocol):
    """Create the items of a suite."""

    def __call__(self, folder: Path | None = None) -> Sequence[Item]:
        """Return the items of all splits.

        Args:
            folder: the benchmark folder; None: there is none.

        Raises:
            FileNotFoundError: a file is missing and there is no other source; names the remedy.
        """
        ...


@dataclass(frozen=True)
class HarnessTask:
    """An lm-eval task, run on the documents of the items.

    Attributes:
        definition: maps an item to the task's YAML file, relative to lm-eval's task folder.
        metrics: our metric name to lm-eval's metric name and filter name.
        generates: whether the model generates text, up to the evaluation's limit, or rates choices.
    """

    definition: Callable[[Item], str]
    metrics: Mapping[str, tuple[str, str]]
    generates: bool = False


@dataclass(frozen=True)
class Suite:
    """A benchmark suite.

    Attributes:
        name: key in SUITES and in every table.
        kind: "generation": the model generates text and `score` scores it. "choice": lm-eval selects the choice with
            the highest log-likelihood and `score` scores its text. "harness": lm-eval runs and scores its own `task`,
            and `score` is for null models only.
        metrics: metric names in display order; the first is the primary metric.
        items: the items of all splits.
        score: 0..1 for each metric, None for one that does not apply to the item. The response of a conversation is its
            `joined` replies.
        shots: solved examples before each prompt.
        chat: whether the prompt is a user turn in the model's chat template; else raw text.
        delimiter: text between prompt and choice, for kind "choice".
        task: lm-eval's task, for kind "harness".
        turns: the user turns, for kind "generation"; each reply is generated before the next turn.
        guards: metric to the guard it belongs to: a gain elsewhere does not outweigh a loss on it.
        files: file name pattern in the benchmark folder; empty: no files.
        from_hub: whether the items come from the hub if there is no file.
    """

    name: str
    kind: Kind
    metrics: tuple[str, ...]
    items: ItemSource
    score: Callable[[Item, str], Mapping[str, float | None]]
    shots: int = 0
    chat: bool = True
    delimiter: str = ""
    task: HarnessTask | None = None
    turns: Callable[[Item], Sequence[str]] = lambda item: (item.prompt,)
    guards: Mapping[str, Literal["safety", "knowledge"]] = field(default_factory=dict)
    files: str = ""
    from_hub: bool = False


def joined(replies: Sequence[str]) -> str:
    """Encode the replies of a conversation as one response: a single reply as it is, several as a JSON list."""
    return replies[0] if len(replies) == 1 else json.dumps(list(replies), ensure_ascii=False)


def replies_of(response: str, turns: int) -> list[str]:
    """Decode a response of `joined`. Raise ValueError if the number of replies is not the number of turns."""
    replies = [response] if turns == 1 else json.loads(response)
    if len(replies) != turns:
        raise ValueError(f"expected {turns} replies, one per turn, got {len(replies)}")
    return replies


NULL_MODELS: Mapping[str, Callable[[Item], str]] = {
    "empty": lambda item: "",
    "echo": lambda item: item.prompt,
    "constant": lambda item: item.choices[0] if item.choices else "I do not know.",
    "refusal": lambda item: "I am sorry, but I cannot help with that.",
}
"""Baseline answers that need no model."""


def choice_score(item: Item, response: str) -> dict[str, float | None]:
    """Return the accuracy of a choice, given its text."""
    return {"acc": float(response == item.choices[int(item.answer)])}


def null_scores(suite: Suite, items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Score the null models: name -> metric -> mean over the items that the metric applies to.

    Raises:
        ValueError: there are no items.
    """
    if not items:
        raise ValueError(f"{suite.name} has no items to score null models on")
    means: dict[str, dict[str, float]] = {}
    for name, respond in NULL_MODELS.items():
        scores = [suite.score(item, joined([respond(item)] * len(suite.turns(item)))) for item in items]
        means[name] = {}
        for metric in suite.metrics:
            values = [value for score in scores if (value := score[metric]) is not None]
            if values:
                means[name][metric] = sum(values) / len(values)
    return means


def item_table(
    suites: Iterable[Suite], folder: Path | None = None, sealed: Collection[str] = frozenset()
) -> pl.DataFrame:
    """Return BENCHMARK_ITEMS of all suites, reading files from `folder` where a suite needs them.

    Args:
        suites: the first one selects the candidate.
        folder: as in `ItemSource`.
        sealed: names of suites whose items are all sealed, whatever their split.

    Raises:
        FileNotFoundError: the file of a suite is missing.
        ValueError: there is no suite, a suite has no test items and is not sealed, the first suite is sealed, a sealed
            suite is not in `suites`, an item is malformed, or two items have the same id.
    """
    suites = list(suites)
    if suites and (invalid := sorted({*sealed} - {suite.name for suite in suites[1:]})):
        reason = (
            "the first suite selects the candidate" if invalid[0] == suites[0].name else "it is not one of the suites"
        )
        raise ValueError(f"{invalid[0]} cannot be sealed: {reason}")
    rows: list[dict[str, object]] = []
    for suite in suites:
        items = suite.items(folder)
        if suite.name in sealed:
            items = [replace(item, split=SEALED) for item in items]
        elif not any(item.split == "test" for item in items):
            raise ValueError(f"suite {suite.name} has no test items")
        for item in items:
            _check(suite, item)
            rows.append({name: getattr(item, name) for name in BENCHMARK_ITEMS.names()})
    if not rows:
        raise ValueError("no benchmark suites: the tier lists none")
    table = pl.DataFrame(rows, schema=BENCHMARK_ITEMS)
    if (duplicates := table.filter(pl.col("item_id").is_duplicated())).height:
        raise ValueError(f"benchmark items have the same id {duplicates['item_id'][0]!r}")
    return table


def check_files(suites: Iterable[Suite], folder: Path) -> None:
    """Read the benchmark files of the suites, to find errors before a run. Does not access the hub.

    Raises:
        FileNotFoundError: a file is missing and there is no other source.
        ValueError: a file is invalid; names file, line and field.
    """
    for suite in suites:
        if suite.files and (not suite.from_hub or any(folder.glob(suite.files))):
            suite.items(folder)


def items_of(table: pl.DataFrame) -> list[Item]:
    """Return the items of a BENCHMARK_ITEMS table, in order."""
    names = [name for name in BENCHMARK_ITEMS.names() if name != "item_hash"]
    rows = table.select(names).iter_rows(named=True)
    return [Item(**{**row, "choices": tuple(row["choices"])}) for row in rows]


def _check(suite: Suite, item: Item) -> None:
    problem = ""
    if item.suite != suite.name or item.kind != suite.kind:
        problem = f"has suite {item.suite!r} and kind {item.kind!r}, expected {suite.name!r} and {suite.kind!r}"
    elif item.split not in (*SPLITS, SEALED):
        problem = f"has the unknown split {item.split!r}; expected one of {', '.join((*SPLITS, SEALED))}"
    elif not item.prompt.strip():
        problem = "has an empty prompt"
    elif suite.kind == "choice" and not 2 <= len(set(item.choices)) == len(item.choices):
        problem = f"must have at least two choices, all different, got {list(item.choices)}"
    elif suite.kind == "choice" and item.answer not in map(str, range(len(item.choices))):
        problem = f"has the answer {item.answer!r}, expected an index below {len(item.choices)}"
    if problem:
        raise ValueError(f"suite {suite.name}: item {item.item_id} {problem}")
