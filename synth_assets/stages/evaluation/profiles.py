"""Style statistics of generated answers (length, variety, refusals), and win rates by a reward model."""

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
        model: name of the model.
        n: number of answers.
        words: words in an answer.
        sentences: sentences in an answer.
        distinct_pairs: distinct-2 (Li et al. 2016): share of distinct word bigrams, 0..1, over the same number of
            bigrams for each model; None if the models wrote no bigram.
        refusal_rate: share of refusals, 0..1.
        cut_rate: share of answers that reached the token limit, 0..1.
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
    """Settings of the win rate of the candidate's answers over the base's.

    Attributes:
        items: maximum number of items, the first by hash; 0 disables the comparison.
        tie: largest difference of two rewards that counts as a tie, in the reward model's unit.
    """

    items: int = setting(500, "Most test items that the reward model compares answers on; 0: none.")
    tie: float = setting(0.0, "Rewards that differ by at most this are a tie, in the reward model's unit.")

    def __post_init__(self) -> None:
        """Raise ValueError with the name of a field that is out of range."""
        for name in ("items", "tie"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


def profiles(scores: pl.DataFrame) -> list[Profile]:
    """Return one profile for each model, in the table's order, over suites with generated text and a single reply.

    Variety decreases with length, so it is measured over the same number of bigrams: as many as the model with the
    fewest wrote.
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
    """Return 1 if the second reward is higher by more than `tie`, 0 if lower, .5 within `tie`, None if one is NaN.

    Raises:
        ValueError: the lengths differ, or `tie` is negative.
    """
    if tie < 0:
        raise ValueError(f"tie must be at least 0, got {tie}")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return [None if np.isnan(d) else 0.5 if abs(d) <= tie else float(d > 0) for d in differences]


def win_rate(
    rewards: RewardModel,
    prompts: Sequence[str],
    answers: tuple[Sequence[str], Sequence[str]],
    clusters: Sequence[str],
    tie: float = 0.0,
) -> Estimate:
    """Return the share of prompts whose second answer the reward model prefers, ties as one half, with its interval.

    Equal texts are ties. The win rate has the reward model's bias, above all for length: read it together with
    `profiles`. A model that was trained on pairs of the same reward model has an advantage.
    """
    first, second = answers
    scores = [rewards.score(list(zip(prompts, texts, strict=True))).tolist() for texts in answers]
    outcomes = wins(scores[0], scores[1], tie)
    equal = [a == b for a, b in zip(first, second, strict=True)]
    return estimate([0.5 if same else won for same, won in zip(equal, outcomes, strict=True)], clusters)


def preferred(
    load_reward_model: Callable[[], RewardModel],
    tables: tuple[pl.DataFrame, pl.DataFrame],
    measured: Sequence[Metric],
    candidate: str,
    spec: PreferenceSpec,
) -> list[Metric]:
    """Return the candidate's win rate over the base, of kind "derived", on the first suite of generated text.

    Args:
        load_reward_model: called only if there are answers to compare.
        tables: ITEM_SCORES, and BENCHMARK_ITEMS for the prompts.
        measured: metrics built from the scores; the win rate takes over their evidence.
        candidate: name of the candidate; empty if there is none.
        spec: number of items and size of a tie.
    """
    scores, items = tables
    written = items.filter(split="test", kind="generation").sort("item_hash")
    reference = next(
        (m for m in measured if (m.model, m.split) == (candidate, "test") and m.suite in set(written["suite"])), None
    )
    if reference is None or not spec.items:
        return []
    both = written.filter(suite=reference.suite).select("item_id", "prompt", "cluster")
    rows = (
        answered(scores).filter(suite=reference.suite, split="test").unique(["model", "item_id"], maintain_order=True)
    )
    for model, column in ((BASE, "first"), (candidate, "second")):
        responses = rows.filter(model=model).select("item_id", pl.col("response").alias(column))
        both = both.join(responses, on="item_id", maintain_order="left")
    if both.is_empty():
        return []
    both, rewards = both.head(spec.items), load_reward_model()
    answers = both["first"].to_list(), both["second"].to_list()
    rate = win_rate(rewards, both["prompt"].to_list(), answers, both["cluster"].to_list(), spec.tie)
    numbers = {"value": rate.value, "n": rate.n, "ci_low": rate.low, "ci_high": rate.high, "unanswerable": 0}
    harness = f"reward model {rewards.model} {rewards.revision}"
    return [replace(reference, metric="win_rate", **numbers, interval=rate.method, harness=harness, kind="derived")]
