"""Recommendations follow from the measured numbers."""

from dataclasses import replace

import pytest

from synth_assets.schemas.records import AdapterRecord, Comparison, Metric, PairedTest
from synth_assets.stages.evaluation.recommendations import recommendations, training_peak, training_seconds
from tests.support.records import make_adapter

DECIDING = ("toy", "strict")


def adapter(name: str, seconds: float, parameters: int, mib: float = 1.0, **facts: object) -> AdapterRecord:
    record = make_adapter(
        name=f"{name}_adapter",
        model_version="1",
        mlflow_run_id="run",
        base_revision="",
        trainable_parameters=parameters,
        total_parameters=10_000,
        peak_memory_bytes=int(mib * 2**20),
        seconds=seconds,
    )
    return replace(record, **facts)  # pyright: ignore[reportArgumentType]


def comparison(values: dict[str, float], p_values: dict[tuple[str, str], float]) -> Comparison:
    def metric(model: str, value: float) -> Metric:
        return Metric(model, "toy", "test", "strict", value, 200, 0, 1, "wilson 0.95", 0, "verifier", "", "", "run")

    def test(first: str, second: str, p: float) -> PairedTest:
        difference = values[second] - values[first]
        return PairedTest(first, second, "toy", "test", "strict", 200, 1, 2, difference, p / 2, p_holm=p)

    return Comparison(
        metrics=[metric(model, value) for model, value in values.items()],
        tests=[test(*pair, p) for pair, p in p_values.items()],
        candidate="lora_adapter",
        failures={},
    )


LORA, TUNED = adapter("lora", 40.0, 800, mib=4), adapter("prompt_tuning", 10.0, 20, mib=2)
VALUES = {"base": 0.2, "lora_adapter": 0.6, "prompt_tuning_adapter": 0.5}
CLEAR = {
    ("base", "lora_adapter"): 0.00001,
    ("base", "prompt_tuning_adapter"): 0.001,
    ("prompt_tuning_adapter", "lora_adapter"): 0.02,
}


def test_each_sentence_has_a_measured_number() -> None:
    assert recommendations(comparison(VALUES, CLEAR), [LORA, TUNED], DECIDING) == [
        "LoRA has the highest score on toy (strict, 200 test items): 60.0%, 40.0 points above the base model's 20.0% "
        "(p < .0001).",
        "LoRA is 10.0 points above prompt tuning (p = .0200).",
        "Prompt tuning is the cheapest to train: 10.0 s from the base model, 10.0 points below LoRA, which takes "
        "40.0 s.",
        "Prompt tuning has the highest gain per training time: 3.00 points per second over the base.",
        "Prompt tuning is the smallest adapter: 20 parameters (LoRA: 800), score 50.0%.",
        "Lowest peak memory of training: prompt tuning with 2.0 MiB; highest: LoRA with 4.0 MiB (derived).",
    ]


def test_other_numbers_make_other_sentences() -> None:
    turned = {"base": 0.2, "lora_adapter": 0.5, "prompt_tuning_adapter": 0.6}
    swapped = [replace(LORA, seconds=5.0, trainable_parameters=10), replace(TUNED, peak_memory_bytes=8 * 2**20)]
    sentences = recommendations(comparison(turned, CLEAR), swapped, DECIDING)
    assert sentences[0].startswith("Prompt tuning has the highest score on toy (strict, 200 test items): 60.0%")
    assert "Prompt tuning is 10.0 points above LoRA (p = .0200)." in sentences
    assert "LoRA is the cheapest to train: 5.0 s from the base model, 10.0 points below prompt tuning" in sentences[2]
    assert "LoRA has the highest gain per training time: 6.00 points per second over the base." in sentences
    memory = "Lowest peak memory of training: LoRA with 4.0 MiB; highest: prompt tuning with 8.0 MiB (derived)."
    assert sentences[-1] == memory
    best_is_quickest = recommendations(comparison(VALUES, CLEAR), [replace(LORA, seconds=1.0), TUNED], DECIDING)
    assert "LoRA is the cheapest to train: 1.0 s from the base model; it also scores highest." in best_is_quickest


@pytest.mark.parametrize(("p", "together"), [(0.05, False), (0.0501, True), (0.7, True)])
def test_two_methods_do_not_differ_significantly_if_p_is_above_the_limit(p: float, together: bool) -> None:
    tests = {**CLEAR, ("prompt_tuning_adapter", "lora_adapter"): p}
    sentences = " ".join(recommendations(comparison(VALUES, tests), [LORA, TUNED], DECIDING))
    assert ("It is not significantly better than prompt tuning" in sentences) == together
    assert ("LoRA is 10.0 points above prompt tuning" in sentences) != together


def test_an_untested_pair_is_listed_as_untested() -> None:
    tests = {pair: p for pair, p in CLEAR.items() if pair[0] == "base"}
    sentences = recommendations(comparison(VALUES, tests), [LORA, TUNED], DECIDING)
    assert sentences[1] == "The difference to prompt tuning was not tested."


def test_methods_that_are_not_above_the_base_are_listed() -> None:
    worse = {"base": 0.4, "lora_adapter": 0.3, "prompt_tuning_adapter": 0.41}
    tests = {("base", "lora_adapter"): 0.01, ("base", "prompt_tuning_adapter"): 1.0}
    sentences = recommendations(comparison(worse, tests), [LORA, TUNED], DECIDING)
    assert "LoRA is 10.0 points below the base model (p = .0100)." in sentences
    assert "Prompt tuning does not differ significantly from the base model (p = 1.0000)." in sentences


def test_time_and_memory_include_the_adapters_it_was_trained_from() -> None:
    dpo = adapter("dpo", 5.0, 800, data_versions={"lora_adapter": "1", "sft_dataset": "2"})
    assert training_seconds(dpo, [LORA, TUNED, dpo]) == 45.0
    assert training_peak(dpo, [LORA, TUNED, dpo]) == 4 * 2**20
    assert training_peak(LORA, [LORA, TUNED, dpo]) == 4 * 2**20


def test_methods_below_the_best_may_not_differ_significantly() -> None:
    third = adapter("dpo", 50.0, 800)
    tests = {**CLEAR, ("prompt_tuning_adapter", "dpo_adapter"): 0.3, ("lora_adapter", "dpo_adapter"): 0.01}
    sentences = recommendations(comparison({**VALUES, "dpo_adapter": 0.48}, tests), [LORA, TUNED, third], DECIDING)
    assert "DPO does not differ significantly from prompt tuning: -2.0 points on 200 items (p = .3000)." in sentences


def test_a_control_separates_the_effect_of_the_loss() -> None:
    dpo, control = adapter("dpo", 5.0, 800), adapter("dpo_control", 5.0, 800, role="control")
    values = {"base": 0.2, "dpo_adapter": 0.6, "dpo_control_adapter": 0.5}
    by_p = {}
    for p in (0.01, 0.4):
        tests = {("base", "dpo_adapter"): 0.001, ("dpo_control_adapter", "dpo_adapter"): p}
        by_p[p] = recommendations(comparison(values, tests), [dpo, control], DECIDING)[1]
    assert by_p[0.01] == "Against its control: DPO is 10.0 points above DPO control (p = .0100)."
    assert by_p[0.4].startswith("DPO does not differ significantly from its control, DPO control (p = .4000)")


def test_without_a_trained_method_there_is_no_recommendation() -> None:
    failed = [replace(LORA, failure="NaN")]
    (sentences,) = recommendations(comparison({"base": 0.2}, {}), failed, DECIDING)
    assert sentences.startswith("No recommendation: ")
