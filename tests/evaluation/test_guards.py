from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import pytest

from synth_assets.evals.guards import (
    compare_with_null,
    detectable_effects,
    detectable_table,
    losses,
    regression_guards,
    sealed_losses,
)
from synth_assets.schemas.tables import ITEM_SCORES
from synth_assets.stages.evaluation.profiles import PreferenceSpec, profiles, win_rate, wins

Scored = Callable[[Mapping[str, Sequence[float | None]]], pl.DataFrame]


def as_knowledge(scores: pl.DataFrame) -> pl.DataFrame:
    return scores.with_columns(suite=pl.lit("world_choice"), metric=pl.lit("acc"))


def test_each_suite_has_a_minimum_detectable_effect(scored: Scored) -> None:
    scores = scored({"base": [0.0] * 80 + [1.0] * 20, "lora_adapter": [0.0] * 70 + [1.0] * 30})
    (found,) = detectable_effects(scores, "base", "lora_adapter")
    assert (found.suite, found.metric, found.n) == ("world_instructions", "strict", 100)
    # r = .1, n = 100: 10 d = 1.96 sqrt(.1) + .8416 sqrt(.1 - d^2), so d = .0876: .6198 + .2557 = 10 d
    assert found.effect == pytest.approx(0.0876, abs=1e-4)
    (same,) = detectable_effects(scores, "base", "base")
    assert same.effect is None
    assert detectable_table([found, same]).splitlines()[2:] == [
        "| world\\_instructions | strict | 100 | 8.8 points |",
        "| world\\_instructions | strict | 100 | no difference was seen |",
    ]


def test_items_without_the_metric_do_not_count_in_n(scored: Scored) -> None:
    scores = scored({"base": [0.0, 1.0, None, 0.5], "lora_adapter": [1.0, 1.0, 1.0, None]})
    (found,) = detectable_effects(scores, "base", "lora_adapter")
    assert found.n == 2


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [([1.0] * 90 + [0.0] * 10, "held"), ([1.0] * 88 + [0.0] * 12, "not shown"), ([1.0] * 70 + [0.0] * 30, "lost")],
)
def test_a_guard_is_held_lost_or_not_shown(candidate: list[float], verdict: str, scored: Scored) -> None:
    scores = as_knowledge(scored({"base": [1.0] * 90 + [0.0] * 10, "lora_adapter": candidate}))
    (found,) = regression_guards(scores, "lora_adapter")
    assert (found.suite, found.metric, found.guards, found.found.verdict) == (
        "world_choice",
        "acc",
        "knowledge",
        verdict,
    )


def test_margins_apply_by_kind_of_guard_and_sealed_items_are_separate(scored: Scored) -> None:
    scores = as_knowledge(scored({"base": [1.0] * 90 + [0.0] * 10, "lora_adapter": [1.0] * 70 + [0.0] * 30}))
    first, second = scores.filter(model="base"), scores.filter(model="lora_adapter")
    verdicts = [
        losses(first, second, {"safety": 0.01, "knowledge": margin})[0].found.verdict for margin in (0.5, 0.25, 0.1)
    ]
    # twenty of a hundred lost, in clusters: -.2, 95 % from below -.25 to below 0
    assert verdicts == ["held", "not shown", "lost"]
    assert sealed_losses(first, second, 0.05) == []
    opened, closed = (table.with_columns(split=pl.lit("sealed")).unique("item_id") for table in (first, second))
    assert losses(opened, closed, {"safety": 0.05, "knowledge": 0.05}) == []
    (found,) = sealed_losses(opened, closed, 0.05)
    assert (found.suite, found.metric, found.guards, found.found.n) == ("world_choice", "acc", "sealed", 100 + 100)
    assert sealed_losses(opened.head(0), closed, 0.05) == []


def test_a_suite_that_guards_nothing_is_not_a_guard(scored: Scored) -> None:
    assert regression_guards(scored({"base": [1.0], "lora_adapter": [0.0]}), "lora_adapter") == []


def test_a_suite_shows_something_above_its_best_null_model(scored: Scored, items: pl.DataFrame) -> None:
    # "I am sorry, but I cannot help" is right where the first hundred test items ask for harm
    scores = scored({"base": [0.0] * 100, "lora_adapter": [1.0] * 50 + [0.0] * 50})
    (found,) = compare_with_null(scores, items)
    assert (found.best_model, found.held) == ("lora_adapter", True)
    assert found.low == pytest.approx(0.4038, abs=1e-4)  # Wilson of 50 in 100
    (nothing,) = compare_with_null(scores.filter(model="base"), items)
    assert not nothing.held


def answers(by_model: Mapping[str, Sequence[tuple[str, str | None]]]) -> pl.DataFrame:
    rows = [
        {"model": model, "suite": "knowledge", "split": "test", "item_id": str(n), "metric": metric}
        | {"response": text, "finish_reason": reason}
        for model, told in by_model.items()
        for n, (text, reason) in enumerate(told)
        for metric in ("right", "exact")
    ]
    return pl.DataFrame(rows).select(
        pl.col(name) if name in rows[0] else pl.lit(None, dtype).alias(name) for name, dtype in ITEM_SCORES.items()
    )


def test_profiles_match_hand_arithmetic() -> None:
    told = {
        "base": [("The cat saw the cat. The cat ran.", "stop"), ("I cannot say.", "length")],
        "lora_adapter": [("A red fox jumps.", "stop"), ("So it does", "stop")],
    }
    base, lora = profiles(answers(told))
    assert (base.n, base.words, base.sentences, base.refusal_rate, base.cut_rate) == (2, 5.5, 1.5, 0.5, 0.5)
    assert (lora.n, lora.words, lora.sentences, lora.refusal_rate, lora.cut_rate) == (2, 3.5, 1.0, 0.0, 0.0)
    # five pairs of each: the cat, cat saw, saw the, the cat, cat the; a red, red fox, fox jumps, so it, it does
    assert (base.distinct_pairs, lora.distinct_pairs) == (0.8, 1.0)


def test_rated_choices_are_no_writing() -> None:
    assert profiles(answers({"base": [("one", None)]})) == []
    (silent,) = profiles(answers({"base": [("", "stop")]}))
    assert silent.distinct_pairs is None


def test_ties_are_half_a_win_and_nan_is_none() -> None:
    assert wins([0.0, 1.0, 2.0, 0.0], [1.0, 1.25, 1.0, float("nan")], tie=0.25) == [1.0, 0.5, 0.0, None]
    with pytest.raises(ValueError, match="at least 0"):
        wins([0.0], [0.0], tie=-1)
    with pytest.raises(ValueError, match="zip"):
        wins([0.0], [])


class Lengthy:
    """Rewards length."""

    model, revision = "lengthy", "1"

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([float(len(answer)) for _, answer in pairs])


def test_win_rate_counts_equal_texts_as_ties() -> None:
    prompts, clusters = ["a", "b", "c", "d"], ["1", "2", "3", "4"]
    found = win_rate(Lengthy(), prompts, (["x", "x", "xx", "xx"], ["xx", "xxx", "xx", "x"]), clusters)
    assert (found.value, found.n, found.method) == (2.5 / 4, 4, "bootstrap 0.95")


@pytest.mark.parametrize("wrong", [{"items": -1}, {"tie": -0.1}])
def test_a_preference_spec_names_the_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PreferenceSpec(**wrong)
