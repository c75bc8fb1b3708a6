"""For each check of a record or of an adapter's files a mutation that makes it fail."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from synth_assets.storage.manifests import read_manifest, write_manifest
from tests.support.mutations import Mutation, cells, extra_file, fields, rewritten, write_text
from tests.support.world import ADAPTERS as METHODS
from tests.support.world import World


def flat_curve(_: Path, facts: dict[str, Any]) -> None:
    for point in facts["outcome"]["curve"]:
        point["loss"] = 2.0


def falling_margin(_: Path, facts: dict[str, Any]) -> None:
    for point in facts["outcome"]["curve"]:
        point["reward_margin"] = -0.1 * point["step"]


def curve_with(name: str, value: float, step: int = 5) -> Callable[[Path, dict[str, Any]], None]:
    """One number of a training's curve is another."""
    return lambda _, facts: facts["outcome"]["curve"][step].update({name: value})


def renamed(old: str, new: str) -> Callable[[Path, dict[str, Any]], None]:
    """A module's matrices stand under another name."""

    def rename(folder: Path, _: dict[str, Any]) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({name.replace(old, new): values for name, values in load_file(path).items()}, path)

    return rename


def weights_that(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[Path, dict[str, Any]], None]:
    """Rewrite every tensor of an adapter."""

    def rewrite(folder: Path, _: dict[str, Any]) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({name: change(name, values) for name, values in load_file(path).items()}, path)

    return rewrite


def untrained_b(name: str, values: np.ndarray) -> np.ndarray:
    return values if name.endswith("lora_A.weight") else np.zeros_like(values)


def no_numbers(name: str, values: np.ndarray) -> np.ndarray:
    return np.full_like(values, np.nan)


def weights_of_lora(folder: Path, _: dict[str, Any]) -> None:
    name = "adapter_model.safetensors"
    shutil.copy(folder.parent / "lora_adapter" / name, folder / name)


def pickled(folder: Path, _: dict[str, Any]) -> None:
    (folder / "training_args.bin").write_bytes(b"pickle")


def damaged(asset: str) -> Mutation:
    """One byte of the configuration changes after the adapter was completed."""
    return lambda world: write_text(world.home / "adapters" / asset / "adapter_config.json", "[]")


EVERY_ADAPTER = tuple(METHODS)
ADAPTERS: dict[tuple[str, str], Mutation] = {}


for adapter in EVERY_ADAPTER:
    ADAPTERS |= {
        (adapter, "training_succeeded"): fields(adapter, failure="loss is nan at step 3: training diverged"),
        (adapter, "adapter_is_complete"): extra_file("notes.txt")(adapter),
        (adapter, "adapter_is_non_zero"): rewritten(adapter, weights_that(untrained_b)),
        (adapter, "loss_is_finite"): fields(adapter, final_loss=float("nan")),
        (adapter, "a_small_share_was_trained"): fields(adapter, total_parameters=32),
        (adapter, "curve_is_finite"): rewritten(adapter, curve_with("token_accuracy", float("nan"))),
        (adapter, "rates_are_as_configured"): rewritten(adapter, curve_with("learning_rate", 1e-3)),
        (adapter, "trained_count_is_the_closed_form"): fields(adapter, trainable_parameters=31),
    }


for adapter in ("lora_adapter", *EVERY_ADAPTER[2:]):
    ADAPTERS[adapter, "target_modules_are_adapted"] = rewritten(adapter, renamed("q_proj", "v_proj"))


for adapter in ("lora_adapter", "prompt_tuning_adapter"):
    ADAPTERS[adapter, "loss_fell"] = rewritten(adapter, flat_curve)


for adapter in ("dpo_adapter", "on_policy_dpo_adapter"):
    ADAPTERS[adapter, "chosen_became_likelier"] = rewritten(adapter, falling_margin)


def changed_file(world: World) -> None:
    (world.home / "teacher" / "config.json").write_text('{"hidden_size": 1}', "utf-8")


def first_metric(**values: object) -> Mutation:
    def mutate(world: World) -> None:
        first, *others = world.data["comparison"].metrics
        fields("comparison", metrics=[replace(first, **values), *others])(world)

    return mutate


def without_metrics(model: str) -> Mutation:
    return lambda world: fields(
        "comparison", metrics=[m for m in world.data["comparison"].metrics if m.model != model]
    )(world)


def failed_clause(world: World) -> None:
    decision = world.data["promotion_decision"]
    fields("promotion_decision", clauses=[replace(decision.clauses[0], passed=False)])(world)


RECORDS: dict[tuple[str, str], Mutation] = {
    ("teacher_model", "model_files_match"): changed_file,
    ("teacher_model", "teacher_opens_as_its_family"): fields("teacher_model", family="qwen2"),
    ("base_model", "model_files_match"): fields("base_model", revision="main"),
    ("reward_model", "model_files_match"): fields("reward_model", location="no/such/folder"),
    ("reward_model", "reward_model_is_sane"): fields("reward_model", location="owner/backwards"),
    ("comparison", "metrics_carry_n_and_interval"): first_metric(n=0),
    ("comparison", "every_model_is_a_row"): without_metrics("prompt_tuning_adapter"),
    ("comparison", "control_is_not_a_candidate"): fields("comparison", candidate="dpo_control_adapter"),
    ("comparison", "candidate_was_measured"): fields("comparison", candidate=""),
    ("promotion_decision", "decision_follows_its_clauses"): failed_clause,
    ("champion", "champion_follows_the_decision"): fields("champion", version="1"),
}


VARIANT, TIMED, STUDY = "lora_variant", "variant_latencies", "efficiency_frontier"


def variant(numbers: dict[str, float] | None = None, **values: object) -> Mutation:
    """Replace fields, or some numbers, of the variant."""

    def mutate(world: World) -> None:
        [(name, one)] = world.data[VARIANT].items()
        world.data[VARIANT] = {name: replace(one, numbers={**one.numbers, **(numbers or {})}, **values)}

    return mutate


def variant_that_learned_nothing(world: World) -> None:
    folder = world.home / "adapters" / "variant"
    facts = read_manifest(folder)
    flat_curve(folder, facts)
    write_manifest(folder, facts)


def mean_outside(world: World) -> None:
    first, *others = world.data[STUDY].means
    fields(STUDY, means=[replace(first, n=2, low=first.mean + 1, high=first.mean + 2), *others])(world)


EFFICIENCY: dict[tuple[str, str], Mutation] = {
    (VARIANT, "variant_was_trained"): variant(failure="loss is nan at step 3: training diverged"),
    (VARIANT, "variant_is_what_it_says"): variant({"trainable_parameters": 31.0}),
    (VARIANT, "variant_numbers_are_finite"): variant({"test_loss": float("nan")}),
    (VARIANT, "variant_loss_fell"): variant_that_learned_nothing,
    (TIMED, "latencies_were_measured_alone"): cells(TIMED, "other_cores", 0.3),
    (TIMED, "latencies_are_in_order"): cells(TIMED, "p95_s", 0.05),
    (STUDY, "grid_is_complete"): fields(STUDY, missing={"r4-all-none-s42": "never materialised"}),
    (STUDY, "intervals_hold_their_means"): mean_outside,
}
