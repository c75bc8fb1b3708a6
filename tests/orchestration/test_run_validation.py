from types import SimpleNamespace
from typing import Any

import pytest

from resources.hardware import Hardware
from synth_assets.orchestration import executor as executor_module
from synth_assets.orchestration import run_validation
from synth_assets.orchestration.executor import StepExecutor
from synth_assets.orchestration.run_validation import SETTINGS, SettingsError, check_settings

CPU = Hardware(tier="cpu")
INFINITE, NO_NUMBER = float("inf"), float("nan")


def config(asset: str, **values: object) -> dict[str, Any]:
    return {"ops": {asset: {"config": values}}}


@pytest.mark.parametrize(
    ("asset", "values", "message"),
    [
        ("lora_adapter", {"rank": -1}, "lora_adapter.rank must be above 0, got -1"),
        ("lora_adapter", {"learning_rate": INFINITE}, "lora_adapter.learning_rate must be finite, got inf"),
        ("lora_adapter", {"learning_rate": NO_NUMBER}, "lora_adapter.learning_rate must be finite, got nan"),
        ("lora_adapter", {"dropout": 1.5}, r"lora_adapter.dropout must be in \[0, 1\), got 1.5"),
        ("lora_adapter", {"epochs": 0.0}, "lora_adapter.epochs must be above 0, got 0.0"),
        ("lora_adapter", {"max_steps": -3}, "lora_adapter.max_steps must be above 0, got -3"),
        ("lora_adapter", {"seed": -1}, "lora_adapter.seed must be in"),
        ("lora_adapter", {"schedule": "triangle"}, "lora_adapter.schedule must be one of cosine, .*got 'triangle'"),
        ("lora_adapter", {"target_modules": []}, "lora_adapter.target_modules must name at least one linear layer"),
        ("lora_adapter", {"order": "packed"}, "lora_adapter.order must not be packed here"),
        ("lora_adapter", {"max_minutes": 0.0}, "lora_adapter.max_minutes: .*greater than 0, got 0.0"),
        ("lora_adapter", {"checkpoint_every_s": -1.0}, "lora_adapter.checkpoint_every_s: .*got -1.0"),
        (
            "lora_adapter",
            {"order": "curriculum", "difficulty": "reward_margin"},
            "lora_adapter.difficulty must not be reward_margin: the rows of this training have no column margin",
        ),
        ("prompt_tuning_adapter", {"virtual_tokens": 0}, "prompt_tuning_adapter.virtual_tokens must be above 0"),
        ("dpo_adapter", {"beta": 0.0}, "dpo_adapter.beta must be above 0, got 0.0"),
        ("dpo_control_adapter", {"beta": -1.0}, "dpo_control_adapter.beta must be above 0"),
        ("on_policy_dpo_adapter", {"loss": "hinge"}, "on_policy_dpo_adapter.loss must be one of"),
        ("on_policy_dpo_control_adapter", {"label_smoothing": 0.7}, "control_adapter.label_smoothing must be in"),
        ("rejection_sampling_adapter", {"accumulation": 0}, "rejection_sampling_adapter.accumulation must be above 0"),
        ("raw_instructions", {"top_p": 0.0}, r"raw_instructions.top_p must be in \(0, 1\], got 0.0"),
        ("raw_instructions", {"turn_weights": [NO_NUMBER]}, "raw_instructions.turn_weights must be finite"),
        (
            "filtered_instructions",
            {"benchmark_cover": 2.0},
            "filtered_instructions.benchmark_cover must be between 0 and 1, got 2.0",
        ),
        ("filtered_preferences", {"min_words": -1}, "filtered_preferences.min_words must be between 0 and inf, got -1"),
        ("sft_dataset", {"validation_fraction": 1.0}, r"sft_dataset.validation_fraction must be in \(0, 1\), got 1.0"),
        (
            "response_candidates",
            {"temperatures": [1.0]},
            r"response_candidates.temperatures must have at least 2 values, got \(1.0,\)",
        ),
        ("on_policy_candidates", {"instructions": 0}, "on_policy_candidates.instructions must be at least 1, got 0"),
        ("preference_pairs", {"margin": -1.0}, "preference_pairs.margin must be finite and at least 0, got -1.0"),
        ("on_policy_pairs", {"strategy": "random"}, "on_policy_pairs.strategy must be best_worst or all, got 'random'"),
        ("benchmark_scores", {"temperature": NO_NUMBER}, "benchmark_scores.temperature must be finite"),
        ("benchmark_items", {"suites": ["chess"]}, "benchmark_items: unknown suite 'chess'"),
        ("comparison", {"tie": -1.0}, "comparison.tie must be at least 0"),
        ("promotion_decision", {"alpha": 2.0}, r"promotion_decision.alpha must be in \[0, 1\], got 2.0"),
        ("variant_latencies", {"prompts": 0}, "variant_latencies.prompts must be at least 1"),
        ("merged_model", {"dtype": "int8"}, "merged_model.dtype must be one of float16, bfloat16, got 'int8'"),
        ("gguf_model", {"quantisations": ["q3"]}, "gguf_model.quantisations must be some of f16, .*got q3"),
        ("ollama_model", {"quantisation": "q3"}, "ollama_model.quantisation must be one of .*got 'q3'"),
        ("hub_release", {"repository": "name"}, "hub_release.repository must be owner/name, got 'name'"),
        ("efficiency_frontier", {"seeds": 9}, r"efficiency_frontier.seeds must be in \[1, 5\], got 9"),
    ],
)
def test_an_invalid_value_is_named(asset: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_settings(config(asset, **values), CPU)


def test_all_invalid_values_are_named() -> None:
    both = {"ops": {**config("lora_adapter", rank=0)["ops"], **config("dpo_adapter", beta=-1.0)["ops"]}}
    with pytest.raises(SettingsError, match=r"lora_adapter\.rank .*; dpo_adapter\.beta "):
        check_settings(both, CPU)


def test_valid_values_pass() -> None:
    check_settings({}, CPU)
    check_settings({"ops": {"lora_adapter": None, "champion": {"config": {"approve": True}}}}, CPU)
    check_settings(config("lora_adapter", rank=128, max_steps=0, schedule="three_phase", max_minutes=1.5), CPU)
    check_settings(config("dpo_adapter", order="curriculum", difficulty="reward_margin", dpo_weight=0.0), CPU)
    check_settings(config("lora_adapter", rank={"env": "RANK"}), CPU)  # known only to the step


def test_target_modules_are_compared_with_the_base() -> None:
    check_settings(config("lora_adapter", target_modules=["q_proj", "down_proj"]), CPU)
    with pytest.raises(SettingsError, match=r"lora_adapter\.target_modules: .*c_attn match no layer; .*q_proj"):
        check_settings(config("lora_adapter", target_modules=["q_proj", "c_attn"]), CPU)


def test_a_rank_that_vllm_does_not_support_is_refused_with_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Hardware(tier="a100")
    check_settings(config("lora_adapter", rank=1024), card)  # without vLLM, Transformers evaluates
    monkeypatch.setattr(run_validation, "find_spec", lambda _: True)
    check_settings(config("lora_adapter", rank=512), card)
    with pytest.raises(SettingsError, match=r"lora_adapter\.rank must be at most 512 .*got 1024\. Lower it"):
        check_settings(config("lora_adapter", rank=1024), card)


def test_every_configurable_asset_is_checked() -> None:
    from synth_assets.definitions import STAGES

    configured = {
        op.name
        for module in STAGES
        for value in vars(module).values()
        for definition in (value if isinstance(value, list) else [value])
        if (op := getattr(definition, "node_def", None)) and getattr(op.config_schema.config_type, "fields", {})
    }
    assert configured - {"champion", "lora_variant"} == set(SETTINGS)  # champion has no spec


def test_a_run_is_checked_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor validates the settings before it starts a step or tags the run."""
    executor = object.__new__(StepExecutor)
    monkeypatch.setattr(executor, "check", lambda run_config: check_settings(run_config, CPU), raising=False)
    monkeypatch.setattr(executor_module, "start_fork_server", lambda _: pytest.fail("a step was started"))
    context: Any = SimpleNamespace(run_config=config("lora_adapter", rank=-1), dagster_run=None, instance=None)
    plan: Any = None
    with pytest.raises(SettingsError, match=r"lora_adapter\.rank must be above 0, got -1"):
        next(executor.execute(context, plan))
