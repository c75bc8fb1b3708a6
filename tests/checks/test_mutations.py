"""For each check a mutation of good data that makes exactly that check fail."""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import polars as pl
import pytest

from checks.adapters import CONTINUED
from tests.support.exports import EXPORT_MUTATIONS, OTHER_EXPORT_MUTATIONS
from tests.support.mutations import (
    BY_BATCH,
    Mutation,
    added_row,
    all_mutations,
    cells,
    column,
    extra_file,
    fields,
    rewritten,
    same_as_first,
)
from tests.support.record_mutations import (
    ADAPTERS,
    EFFICIENCY,
    EVERY_ADAPTER,
    RECORDS,
    STUDY,
    TIMED,
    VARIANT,
    damaged,
    first_metric,
    no_numbers,
    pickled,
    variant,
    weights_of_lora,
    weights_that,
)
from tests.support.reward_mutations import REWARD, REWARD_TRAINING, reward
from tests.support.table_mutations import (
    CANDIDATES,
    ITEMS,
    LAST,
    LONG,
    OWN_CANDIDATES,
    PAIRS,
    SCORES,
    TABLE_CHECKS,
    TABLES,
    UNPAIRED,
    planted,
)
from tests.support.world import BATCH, World

pytestmark = pytest.mark.integration


RunChecks = Callable[..., dict[tuple[str, str], bool]]  # of a world, and of the assets whose readers run


MUTATIONS: dict[tuple[str, str], Mutation] = (
    EXPORT_MUTATIONS | REWARD_TRAINING | EFFICIENCY | TABLES | TABLE_CHECKS | ADAPTERS | RECORDS
)


OTHER_WAYS: list[tuple[str, str, Mutation]] = [
    (BY_BATCH, "no_replayed_rows", lambda world: world.data[BY_BATCH].update(first=world.data[BY_BATCH][BATCH])),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "choices", ["one"], LAST)),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "choices", ["two", "two"], LAST)),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "answer", "the first", LAST)),
    (ITEMS, "answers_are_among_the_choices", cells(ITEMS, "answer", None)),
    ("sft_dataset", "no_leakage_between_splits", same_as_first("sft_dataset", "group", row=39)),
    ("sft_dataset", "validation_is_a_small_share", cells("sft_dataset", "split", "validation", range(20, 39))),
    (PAIRS, "margins_are_positive", cells(PAIRS, "margin", None)),
    (PAIRS, "margins_are_positive", all_mutations(
        cells(PAIRS, "margin", -1.0), cells(PAIRS, "chosen_reward", 0.5), cells(PAIRS, "rejected_reward", 1.5)
    )),
    (PAIRS, "margins_are_positive", all_mutations(
        cells(PAIRS, "margin", float("nan")), cells(PAIRS, "chosen_reward", float("nan"))
    )),
    ("sft_dataset", "no_leakage_between_splits", planted("sft_dataset")),
    ("sft_dataset", "no_leakage_between_splits", all_mutations(
        cells("sft_dataset", "instruction", f"Explain {LONG} to a child.", UNPAIRED),
        cells("sft_dataset", "instruction", f"Explain {LONG} to a parent.", LAST),
    )),
    (PAIRS, "no_leakage_between_splits", planted(PAIRS, row=0)),
    (PAIRS, "no_leakage_between_splits", lambda world: cells(
        PAIRS, "rejected", f"You ask: {world.data[ITEMS]['prompt'][0]} I do not know.")(world)),
    (PAIRS, "no_leakage_between_splits", same_as_first(PAIRS, "instruction", row=11)),
    (PAIRS, "no_leakage_between_splits", lambda world: cells(
        PAIRS, "instruction", world.data["sft_dataset"]["instruction"][-1]
    )(world)),
    (CANDIDATES, "rewards_are_finite", cells(CANDIDATES, "reward", None)),
    (CANDIDATES, "rewards_are_finite", cells(CANDIDATES, "reward", float("inf"))),
    (OWN_CANDIDATES, "candidates_are_the_policys_own", cells(OWN_CANDIDATES, "model", None)),
    (OWN_CANDIDATES, "candidates_are_the_policys_own", fields("lora_adapter", fingerprint="0" * 16)),
    (SCORES, "scores_are_finite_with_n", cells(SCORES, "score", float("nan"))),
    (SCORES, "scores_are_finite_with_n", column(SCORES, "score", pl.lit(None, pl.Float64))),
    *[(name, "adapter_is_complete", damaged(name)) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_complete", rewritten(name, pickled)) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_complete", fields(name, manifest_sha256="0" * 64)) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_non_zero", rewritten(name, weights_that(no_numbers))) for name in EVERY_ADAPTER],
    *[(name, "adapter_is_non_zero", rewritten(name, weights_of_lora)) for name in CONTINUED],
    ("lora_adapter", "loss_is_finite", fields("lora_adapter", final_loss=-0.1)),
    ("lora_adapter", "a_small_share_was_trained", fields("lora_adapter", total_parameters=0)),
    ("teacher_model", "model_files_match", fields("teacher_model", revision="0" * 16)),
    ("teacher_model", "teacher_opens_as_its_family", fields("teacher_model", family="unheard-of")),
    ("comparison", "metrics_carry_n_and_interval", first_metric(value=0.9)),
    ("comparison", "metrics_carry_n_and_interval", first_metric(ci_high=float("nan"))),
    ("comparison", "metrics_carry_n_and_interval", first_metric(items_sha256="")),
    ("comparison", "control_is_not_a_candidate", fields("comparison", candidate="base")),
    ("comparison", "candidate_was_measured", fields("comparison", failures={"dpo_adapter": "diverged"})),
    (REWARD, "reward_beats_longer_is_better", reward("against_longer", difference=-0.5)),
    (REWARD, "accuracies_follow_from_the_pairs", reward("held_out", n=21)),
    (REWARD, "reward_model_is_complete", lambda world: (world.home / "reward_models/reward/model.bin").touch()),
    (REWARD, "reward_weights_changed", fields(REWARD, spec={"target_modules": ["k_proj"]})),
    (VARIANT, "variant_was_trained", variant(not_run="nf4 needs bitsandbytes, which is not installed")),
    (VARIANT, "variant_is_what_it_says", variant(spec={"rank": 2, "target_modules": ["v_proj"]})),
    (VARIANT, "variant_is_what_it_says", extra_file("notes.txt")("variant")),
    (TIMED, "latencies_are_in_order", cells(TIMED, "p99_s", None)),
    (VARIANT, "variant_numbers_are_finite", variant({"score": 1.5})),
    (VARIANT, "variant_numbers_are_finite", variant({"seconds": 0.0})),
    (TIMED, "latencies_were_measured_alone", cells(TIMED, "other_cores", None)),
    (TIMED, "latencies_are_in_order", added_row(TIMED)),
    (STUDY, "intervals_hold_their_means", lambda world: fields(STUDY, means=[
        replace(world.data[STUDY].means[0], n=2)
    ])(world)),
    ("promotion_decision", "decision_follows_its_clauses", fields("promotion_decision", clauses=[])),
    ("promotion_decision", "decision_follows_its_clauses", fields("promotion_decision", reason="")),
    ("champion", "champion_follows_the_decision", fields("champion", flagged=True)),
    *OTHER_EXPORT_MUTATIONS,
]  # fmt: skip


def test_good_data_passes_every_check(
    world: World, run_checks: RunChecks, all_checks: list[dg.AssetChecksDefinition]
) -> None:
    verdicts = run_checks(world)
    assert verdicts.keys() == keys(all_checks)
    assert [key for key, passed in verdicts.items() if not passed] == []


def test_checks_say_the_same_within_a_run(world: World, run_in_dagster: RunChecks) -> None:
    MUTATIONS[BY_BATCH, "no_replayed_rows"](world)
    MUTATIONS["sft_dataset", "validation_is_a_small_share"](world)
    verdicts = run_in_dagster(world)
    red = [key for key, passed in verdicts.items() if not passed]
    assert sorted(red) == [(BY_BATCH, "no_replayed_rows"), ("sft_dataset", "validation_is_a_small_share")]
    assert len(verdicts) > 30


def test_every_check_has_a_mutation(all_checks: list[dg.AssetChecksDefinition]) -> None:
    assert keys(all_checks) == MUTATIONS.keys()


@pytest.mark.parametrize(
    ("asset", "check", "mutation"),
    [*((asset, check, mutation) for (asset, check), mutation in MUTATIONS.items()), *OTHER_WAYS],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_mutation_turns_exactly_its_check_red(
    asset: str, check: str, mutation: Mutation, world: World, run_checks: RunChecks
) -> None:
    before = dict(world.data)
    mutation(world)
    changed = [name for name in world.data if world.data[name] is not before[name]] or [asset]
    verdicts = run_checks(world, *{asset, *changed})
    assert [key for key, passed in verdicts.items() if not passed] == [(asset, check)]


def keys(definitions: list[dg.AssetChecksDefinition]) -> set[tuple[str, str]]:
    return {(key.asset_key.path[-1], key.name) for definition in definitions for key in definition.check_keys}
