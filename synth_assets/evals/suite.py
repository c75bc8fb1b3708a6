"""What a benchmark is: items, how an answer is scored, and what answers without any understanding get."""

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
"""The candidate is chosen on validation, all models are shown on test."""
SEALED: Split = "sealed"
"""Items that nothing is chosen, tuned or shown by: only a promotion asks them, of the two models that it judges."""
Kind = Literal["generation", "choice", "harness"]
KINDS: tuple[Kind, ...] = ("generation", "choice", "harness")


@dataclass(frozen=True)
class Item:
    """One question. `answer` is the right choice's index as text, or what the suite's verifier needs.

    For kind "harness" that is lm-eval's document as JSON; for a conversation `prompt` is all the user's turns.
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
        """Changes with anything that a model sees or is judged by; not with the item's id."""
        return fingerprint(self.suite, self.split, self.kind, self.prompt, list(self.choices), self.answer)


class ItemSource(Protocol):
    """Makes the items of a suite."""

    def __call__(self, folder: Path | None = None) -> Sequence[Item]:
        """All items of all splits.

        Args:
            folder: where the deployment keeps benchmark files; None: nowhere.

        Raises:
            FileNotFoundError: a file is missing, and what it holds is nowhere else; names the remedy.
        """
        ...


@dataclass(frozen=True)
class HarnessTask:
    """One of lm-eval's own tasks, run on documents that the items hold.

    Attributes:
        definition: of an item: the task's YAML file, relative to lm-eval's folder of tasks.
        metrics: our name of a metric to lm-eval's name and the filter it is read behind.
        generates: whether the model writes, at most as many tokens as the evaluation allows, or rates choices.
    """

    definition: Callable[[Item], str]
    metrics: Mapping[str, tuple[str, str]]
    generates: bool = False


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Attributes:
        name: key in SUITES and in every table.
        kind: "generation": the model writes and `score` judges the text; "choice": the evaluation harness takes the
            choice with the highest log-likelihood, and `score` judges that choice's text; "harness": lm-eval runs its
            own `task` and judges, and `score` tells only what null models get.
        metrics: names in the order they are shown; the first is the one that decides.
        items: all items of all splits.
        score: 0..1 for each metric, None where one does not apply to the item. Of a conversation the response is
            `joined` replies.
        shots: solved examples before each prompt.
        chat: whether the prompt is a user's turn in the model's chat template, or raw text.
        delimiter: between prompt and choice, for kind "choice".
        task: for kind "harness".
        turns: for kind "generation": what the user says, turn by turn; each reply is generated before the next turn.
        guards: metric to what it guards: a model must not lose it while it gains elsewhere.
        files: pattern of the names of its files below the folder of benchmarks; empty: it has none.
        from_hub: whether its items come from the hub where there is no such file.
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
    """The replies of a conversation as one response: the reply itself, or a JSON list of several."""
    return replies[0] if len(replies) == 1 else json.dumps(list(replies), ensure_ascii=False)


def replies_of(response: str, turns: int) -> list[str]:
    """The replies that `joined` made one response of; ValueError where there are not as many as turns."""
    replies = [response] if turns == 1 else json.loads(response)
    if len(replies) != turns:
        raise ValueError(f"a conversation of {turns} turns has {len(replies)} replies")
    return replies


NULL_MODELS: Mapping[str, Callable[[Item], str]] = {
    "empty": lambda item: "",
    "echo": lambda item: item.prompt,
    "constant": lambda item: item.choices[0] if item.choices else "I do not know.",
    "refusal": lambda item: "I am sorry, but I cannot help with that.",
}
"""Answers that need no model; a score is worth what it is above the best of these."""


def choice_score(item: Item, response: str) -> dict[str, float | None]:
    """Accuracy of a four-choice answer, given the chosen choice's text."""
    return {"acc": float(response == item.choices[int(item.answer)])}


def null_scores(suite: Suite, items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """What each null model gets on the items: its name, then metric to mean over the items that count.

    Raises:
        ValueError: there are no items.
    """
    if not items:
        raise ValueError(f"{suite.name}: no items to score null models on")
    found: dict[str, dict[str, float]] = {}
    for name, respond in NULL_MODELS.items():
        scores = [suite.score(item, joined([respond(item)] * len(suite.turns(item)))) for item in items]
        found[name] = {}
        for metric in suite.metrics:
            applying = [value for score in scores if (value := score[metric]) is not None]
            if applying:
                found[name][metric] = sum(applying) / len(applying)
    return found


def item_table(
    suites: Iterable[Suite], folder: Path | None = None, sealed: Collection[str] = frozenset()
) -> pl.DataFrame:
    """BENCHMARK_ITEMS of all suites, from files of `folder` where a suite needs some.

    Args:
        suites: the first chooses the candidate.
        folder: as in `ItemSource`.
        sealed: names of suites whose items are all sealed, whatever split they come in.

    Raises:
        FileNotFoundError: a suite's file is missing; nothing is returned for the others either.
        ValueError: no suite, one without test items that is not sealed, the first one sealed, a sealed one that is
            not there, a malformed item, or two items with one id.
    """
    suites = list(suites)
    if suites and (wrong := sorted({*sealed} - {suite.name for suite in suites[1:]})):
        why = "the first suite chooses the candidate" if wrong[0] == suites[0].name else "it is none of the suites"
        raise ValueError(f"{wrong[0]} cannot be sealed: {why}")
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
        raise ValueError("no suite to take items from: the tier's row lists none, and nothing could be measured")
    table = pl.DataFrame(rows, schema=BENCHMARK_ITEMS)
    if (twice := table.filter(pl.col("item_id").is_duplicated())).height:
        raise ValueError(f"benchmark items share the id {twice['item_id'][0]!r}")
    return table


def check_files(suites: Iterable[Suite], folder: Path) -> None:
    """Read the files of suites that have some, before anything runs; the hub is not asked.

    Raises:
        FileNotFoundError: a file is missing, and what it holds is nowhere else.
        ValueError: a file is not as it should be; names file, line and field.
    """
    for suite in suites:
        if suite.files and (not suite.from_hub or any(folder.glob(suite.files))):
            suite.items(folder)


def items_of(table: pl.DataFrame) -> list[Item]:
    """The items of a BENCHMARK_ITEMS table, in order."""
    names = [name for name in BENCHMARK_ITEMS.names() if name != "item_hash"]
    rows = table.select(names).iter_rows(named=True)
    return [Item(**{**row, "choices": tuple(row["choices"])}) for row in rows]


def _check(suite: Suite, item: Item) -> None:
    wrong = ""
    if item.suite != suite.name or item.kind != suite.kind:
        wrong = f"belongs to suite {item.suite!r} of kind {item.kind!r}"
    elif item.split not in (*SPLITS, SEALED):
        wrong = f"is in split {item.split!r}; there are {', '.join((*SPLITS, SEALED))}"
    elif not item.prompt.strip():
        wrong = "has an empty prompt"
    elif suite.kind == "choice" and not 2 <= len(set(item.choices)) == len(item.choices):
        wrong = f"needs at least two different choices, not {list(item.choices)}"
    elif suite.kind == "choice" and item.answer not in map(str, range(len(item.choices))):
        wrong = f"has the answer {item.answer!r} for {len(item.choices)} choices"
    if wrong:
        raise ValueError(f"suite {suite.name}: item {item.item_id} {wrong}")
