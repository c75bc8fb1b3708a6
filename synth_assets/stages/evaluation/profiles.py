"""How models write, beside how well: length, sentences, variety, refusals; and whose answer a reward model prefers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl

from synth_assets.evals.constraints import sentences, words
from synth_assets.evals.refusals import refuses
from synth_assets.evals.unanswerable import answered
from synth_assets.llm.protocols import RewardModel
from synth_assets.schemas.records import BASE, Metric
from synth_assets.schemas.settings import setting
from synth_assets.stats.intervals import Estimate, estimate


@dataclass(frozen=True)
class Profile:
    """Means over one model's generated answers to the test items.

    Attributes:
        model: its name.
        n: answers.
        words: in an answer.
        sentences: in an answer.
        distinct_pairs: share of different pairs of neighbouring words among as many pairs of each model, 0..1; None
            where the models wrote no pair.
        refusal_rate: 0..1.
        cut_rate: answers that reached the limit of tokens, 0..1.
    """

    model: str
    n: int
    words: float
    sentences: float
    distinct_pairs: float | None
    refusal_rate: float
    cut_rate: float


@dataclass(frozen=True)
class PreferenceSpec:
    """How the reward model compares the candidate's answers with the base's.

    Attributes:
        items: at most so many, the first by hash; 0: not at all.
        tie: rewards at most so far apart are a tie, in the reward model's unit.
    """

    items: int = setting(500, "Most test items that the reward model compares answers on; 0: none.")
    tie: float = setting(0.0, "Rewards that differ by at most this are a tie, in the reward model's unit.")

    def __post_init__(self) -> None:
        """ValueError naming the field."""
        for name in ("items", "tie"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")


def profiles(scores: pl.DataFrame) -> list[Profile]:
    """One for each model, in the table's order, over suites with generated text and a single reply.

    Variety falls with length, so it is counted over the same number of pairs: as many as the tersest model wrote.
    """
    written = (
        answered(scores)
        .filter(pl.col("split") == "test", pl.col("finish_reason").is_not_null())
        .unique(["model", "suite", "item_id"], maintain_order=True)
    )
    answers = {
        str(model): (rows["response"].to_list(), rows["finish_reason"].to_list())
        for (model,), rows in written.group_by("model", maintain_order=True)
    }
    pairs = {model: [p for text in texts for p in pairwise(words(text))] for model, (texts, _) in answers.items()}
    shared = min(map(len, pairs.values()), default=0)
    return [
        Profile(
            model=model,
            n=len(texts),
            words=float(np.mean([len(words(text)) for text in texts])),
            sentences=float(np.mean([sentences(text.strip()) for text in texts])),
            distinct_pairs=len(set(pairs[model][:shared])) / shared if shared else None,
            refusal_rate=float(np.mean([refuses(text) for text in texts])),
            cut_rate=reasons.count("length") / len(reasons),
        )
        for model, (texts, reasons) in answers.items()
    ]


def wins(first: Sequence[float], second: Sequence[float], tie: float = 0.0) -> list[float | None]:
    """1 where the second's reward is higher by more than `tie`, 0 where lower, .5 within it; None where one is NaN.

    Raises:
        ValueError: the lengths differ, or `tie` is negative.
    """
    if tie < 0:
        raise ValueError(f"a tie is a distance of rewards of at least 0, not {tie}")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return [None if np.isnan(d) else 0.5 if abs(d) <= tie else float(d > 0) for d in differences]


def win_rate(
    rewards: RewardModel,
    prompts: Sequence[str],
    answers: tuple[Sequence[str], Sequence[str]],
    clusters: Sequence[str],
    tie: float = 0.0,
) -> Estimate:
    """How often the reward model prefers the second answer to a prompt, ties as one half, with its interval.

    Equal texts are ties whatever the model says. It shares the reward model's bias, for length above all: look at
    `profiles` beside it. A model that was trained on pairs of the same reward model has an advantage.
    """
    first, second = answers
    scores = [rewards.score(list(zip(prompts, texts, strict=True))).tolist() for texts in answers]
    outcomes = wins(scores[0], scores[1], tie)
    equal = [a == b for a, b in zip(first, second, strict=True)]
    return estimate([0.5 if same else won for same, won in zip(equal, outcomes, strict=True)], clusters)


def preferred(
    judge: Callable[[], RewardModel],
    tables: tuple[pl.DataFrame, pl.DataFrame],
    found: Sequence[Metric],
    candidate: str,
    spec: PreferenceSpec,
) -> list[Metric]:
    """The candidate's win rate over the base, of kind "derived", on test items of the first suite of generated text.

    Args:
        judge: loads the reward model, where there is something to judge.
        tables: ITEM_SCORES, and BENCHMARK_ITEMS for the prompts.
        found: metrics built from the scores; the win rate takes over their evidence.
        candidate: the model that may win; empty: there is none.
        spec: how many items, and what a tie is.
    """
    scores, items = tables
    written = items.filter(split="test", kind="generation").sort("item_hash")
    like = next(
        (m for m in found if (m.model, m.split) == (candidate, "test") and m.suite in set(written["suite"])), None
    )
    if like is None or not spec.items:
        return []
    both = written.filter(suite=like.suite).select("item_id", "prompt", "cluster")
    told = answered(scores).filter(suite=like.suite, split="test").unique(["model", "item_id"], maintain_order=True)
    for model, column in ((BASE, "first"), (candidate, "second")):
        own = told.filter(model=model).select("item_id", pl.col("response").alias(column))
        both = both.join(own, on="item_id", maintain_order="left")
    if both.is_empty():
        return []
    both, rewards = both.head(spec.items), judge()
    answers = both["first"].to_list(), both["second"].to_list()
    rate = win_rate(rewards, both["prompt"].to_list(), answers, both["cluster"].to_list(), spec.tie)
    numbers = {"value": rate.value, "n": rate.n, "ci_low": rate.low, "ci_high": rate.high, "unanswerable": 0}
    harness = f"reward model {rewards.model} {rewards.revision}"
    return [replace(like, metric="win_rate", **numbers, interval=rate.method, harness=harness, kind="derived")]
