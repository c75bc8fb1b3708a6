"""A round is one row: its assets, its checks and its names follow from it."""

import dagster as dg

import checks.preference
from synth_assets.reporting.display_names import display_name
from synth_assets.schemas.preference_rounds import OFF_POLICY, ON_POLICY, ROUNDS, PreferenceRound, on_policy
from synth_assets.stages.adapters.assets import adapter_asset, reference_asset
from synth_assets.stages.preference.assets import assets_of_round
from synth_assets.training.methods import ADAPTERS, CONTROLS, dpo_method
from synth_assets.training.specs import OnPolicyDpoSpec

SECOND = on_policy("on_policy_2", policy="on_policy_dpo_adapter")


def test_a_second_round_continues_the_first_by_one_row() -> None:
    method = dpo_method(SECOND, OnPolicyDpoSpec)
    made = [
        *assets_of_round(SECOND),
        reference_asset(SECOND),
        adapter_asset(method),
        adapter_asset(method, control=True),
    ]
    reads = {d.key.to_user_string(): {key.to_user_string() for key in d.dependency_keys} for d in made}
    assert reads.keys() == {
        "on_policy_2_candidates",
        "on_policy_2_pairs",
        "on_policy_2_reference_logprobs",
        "on_policy_2_dpo_adapter",
        "on_policy_2_dpo_control_adapter",
    }
    assert {"on_policy_dpo_adapter", "sft_dataset", "reward_model"} <= reads["on_policy_2_candidates"]
    assert {"on_policy_2_candidates", "response_candidates", "recalled_rows"} <= reads["on_policy_2_pairs"]
    assert {"on_policy_2_pairs", "on_policy_dpo_adapter", "on_policy_2_reference_logprobs"} <= reads[
        "on_policy_2_dpo_adapter"
    ]
    assert reads["on_policy_2_dpo_adapter"] == reads["on_policy_2_dpo_control_adapter"]
    assert "on-policy DPO adapter" in str(made[0].descriptions_by_key[dg.AssetKey("on_policy_2_candidates")])


def test_a_second_round_has_the_checks_of_the_first() -> None:
    def names(one: PreferenceRound) -> list[str]:
        return [key.name for definition in checks.preference.checks_of_round(one) for key in definition.check_keys]

    assert sorted(names(SECOND)) == sorted(names(ON_POLICY[0]))
    assert set(names(SECOND)) - set(names(OFF_POLICY)) == {"candidates_are_the_policys_own"}


def test_every_round_is_examined_and_its_control_is_no_candidate() -> None:
    assert {one.adapter for one in ROUNDS} | {one.control for one in ROUNDS} <= set(ADAPTERS)
    assert set(CONTROLS) == {one.control for one in ROUNDS} | {"orpo_control_adapter"}


def test_display_names() -> None:
    assert [display_name(f"{name}_adapter") for name in ("lora", "orpo", "kto")] == ["LoRA", "ORPO", "KTO"]
    assert display_name("on_policy_dpo_control_adapter") == "on-policy DPO control"
