from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import polars as pl
import pytest

from synth_assets.evals.comparison import compare, paired_scores, paired_tests, rivals
from synth_assets.evals.scoring import metrics
from synth_assets.schemas.records import AdapterRecord, Comparison, PairedTest

Scored = Callable[[Mapping[str, Sequence[float | None]]], pl.DataFrame]
SUITE, METRIC = "world_instructions", "strict"


def right(count: int, n: int = 20) -> list[float]:
    """Right on the first `count` of `n` items."""
    return [1.0] * count + [0.0] * (n - count)


ALL = {
    "base": right(2),
    "prompt_tuning_adapter": right(6),
    "lora_adapter": right(12),
    "rejection_sampling_adapter": right(15),
    "dpo_adapter": right(14),
    "dpo_control_adapter": right(19),
}
ENGINES = dict.fromkeys(ALL, "fake 1")


def compared(scores: pl.DataFrame, items: pl.DataFrame, adapters: Sequence[AdapterRecord]) -> Comparison:
    return compare(metrics(scores, engines=ENGINES, data_hash="d"), scores, items, adapters)


def test_the_candidate_is_the_best_that_is_no_control(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    assert compared(scored(ALL), items, adapters).candidate == "rejection_sampling_adapter"


def test_the_candidate_is_chosen_on_validation_and_not_on_test(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    swapped = {**ALL, "dpo_adapter": right(20), "rejection_sampling_adapter": right(1)}
    scores = pl.concat([scored(ALL).filter(split="validation"), scored(swapped).filter(split="test")])
    assert compared(scores, items, adapters).candidate == "rejection_sampling_adapter"


def test_of_equals_the_one_with_fewer_parameters(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    same = {**ALL, "prompt_tuning_adapter": right(15)}
    assert compared(scored(same), items, adapters).candidate == "prompt_tuning_adapter"


def test_a_failed_adapter_is_a_failure_and_the_others_go_on(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    failed = [replace(a, failure="loss is NaN at step 3") if a.name == "dpo_adapter" else a for a in adapters]
    scores = scored({name: found for name, found in ALL.items() if name != "dpo_adapter"})
    result = compared(scores, items, failed)
    assert result.failures == {"dpo_adapter": "loss is NaN at step 3"}
    assert result.candidate == "rejection_sampling_adapter"
    assert not any("dpo_adapter" in (test.first, test.second) for test in result.tests)


def test_without_any_candidate_there_is_none(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    failed = [replace(adapter, failure="no rows") for adapter in adapters]
    result = compared(scored({"base": right(2)}), items, failed)
    assert (result.candidate, result.tests, result.samples) == ("", [], [])
    assert len(result.metrics) == 2


def test_a_model_without_scores_and_without_a_failure_is_refused(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    scores = scored({name: found for name, found in ALL.items() if name != "lora_adapter"})
    with pytest.raises(ValueError, match="no rows for lora_adapter"):
        compared(scores, items, adapters)
    with pytest.raises(ValueError, match="no validation scores"):
        compared(scored(ALL).filter(split="test"), items, adapters)
    with pytest.raises(ValueError, match="no rows for base"):
        compared(scored(ALL).clear(), items, adapters)


def test_each_question_has_its_test(scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]) -> None:
    tests = compared(scored(ALL), items, adapters).tests
    assert [(test.first, test.second) for test in tests] == [
        ("base", "prompt_tuning_adapter"),
        ("base", "lora_adapter"),
        ("base", "rejection_sampling_adapter"),
        ("base", "dpo_adapter"),
        ("base", "dpo_control_adapter"),
        ("dpo_control_adapter", "dpo_adapter"),
        ("prompt_tuning_adapter", "lora_adapter"),
        ("prompt_tuning_adapter", "rejection_sampling_adapter"),
        ("prompt_tuning_adapter", "dpo_adapter"),
        ("lora_adapter", "rejection_sampling_adapter"),
        ("lora_adapter", "dpo_adapter"),
        ("rejection_sampling_adapter", "dpo_adapter"),
    ]


def test_paired_tests_match_hand_arithmetic(scored: Scored) -> None:
    scores = scored({"base": [1, 0, 0, 0, 0, 0, 0, 0], "a": [0, 1, 1, 1, 1, 1, 0, 0], "b": [1, 0, 0, 0, 0, 0, 0, 0]})
    against_a, against_b = paired_tests(scores, [("base", "a"), ("base", "b")], SUITE, METRIC)
    # 1 only the base's, 5 only a's: p = 2 * (1 + 6) / 2**6 = 14/64; Holm doubles the smaller of two
    assert against_a == PairedTest(
        "base", "a", SUITE, "test", METRIC, 8, 1, 5, 0.5, 14 / 64, "exact McNemar", p_holm=28 / 64
    )
    assert (against_b.difference, against_b.p_value, against_b.p_holm) == (0.0, 1.0, 1.0)


def test_graded_scores_get_a_bootstrap(scored: Scored) -> None:
    scores = scored({"base": [0.25] * 40, "a": [0.75] * 39 + [0.0]})
    (test,) = paired_tests(scores, [("base", "a")], SUITE, METRIC)
    assert test.test == "paired bootstrap by cluster"
    assert (test.only_first, test.only_second) == (1, 39)
    assert test.difference == pytest.approx((39 * 0.5 - 0.25) / 40)
    assert test.p_value < 0.01


def test_only_items_that_count_for_both_are_paired(scored: Scored) -> None:
    scores = scored({"base": [1, None, 0, 1], "a": [0, 1, None, 1]})
    paired = paired_scores(scores, "base", "a", SUITE, METRIC, "test")
    assert paired.select("first", "second").rows() == [(1.0, 0.0), (1.0, 1.0)]
    with pytest.raises(ValueError, match="not scored on the same items"):
        paired_scores(scores[:-1], "base", "a", SUITE, METRIC, "test")
    with pytest.raises(ValueError, match="no scored item"):
        paired_scores(scored({"base": [None], "a": [1]}), "base", "a", SUITE, METRIC, "test")


def test_an_on_policy_round_has_its_own_control_and_rivals(adapters: list[AdapterRecord]) -> None:
    own = replace(adapters[3], name="on_policy_dpo_adapter", method="on_policy_dpo")
    control = replace(own, name="on_policy_dpo_control_adapter", role="control")
    asked = list(rivals([*adapters, own, control]))
    assert [pair for pair in asked if own.name in pair and "base" not in pair] == [
        (control.name, own.name),
        ("prompt_tuning_adapter", own.name),
        ("lora_adapter", own.name),
        ("rejection_sampling_adapter", own.name),
        ("dpo_adapter", own.name),
    ]
    assert ("dpo_control_adapter", "dpo_adapter") in asked


def test_samples_are_five_test_items_of_different_clusters(
    scored: Scored, items: pl.DataFrame, adapters: list[AdapterRecord]
) -> None:
    samples = compared(scored(ALL), items, adapters).samples
    prompts = items.filter(split="test").select("prompt", "cluster").to_dicts()
    cluster = {row["prompt"]: row["cluster"] for row in prompts}
    assert len(samples) == len({cluster[sample["prompt"]] for sample in samples}) == 5
    assert all(sample["before"].startswith("base says") for sample in samples)
    assert all(sample["after"].startswith("rejection_sampling_adapter says") for sample in samples)
    assert {sample["after_score"] for sample in samples} <= {"0", "1"}
