"""Mutations of the trained reward model: its record, its scored pairs and its files."""

import shutil
from dataclasses import replace

import polars as pl

from synth_assets.stages.reward_training.accuracy import accuracy_of, against_longer
from synth_assets.storage.manifests import write_manifest
from tests.support.mutations import Mutation, fields
from tests.support.world import BASE_WEIGHTS, World

REWARD = "trained_reward_model"


def reward(field: str, **values: object) -> Mutation:
    """Replace fields of a part of the reward model's record."""

    def mutate(world: World) -> None:
        record = world.data[REWARD]
        world.data[REWARD] = replace(record, **{field: replace(getattr(record, field), **values)})

    return mutate


def reward_of_the_base(world: World) -> None:
    folder = world.home / "reward_models" / "reward"
    shutil.copyfile(world.home / BASE_WEIGHTS / "model.safetensors", folder / "model.safetensors")
    fields(REWARD, manifest_sha256=write_manifest(folder, {}))(world)


def group_in_both_splits(world: World) -> None:
    path = world.home / "scored.parquet"
    scored = pl.read_parquet(path)
    scored.with_columns(pl.col("group").replace("g30", "g0")).write_parquet(path)


def right_by_chance(world: World) -> None:
    """Every second held-out pair is ranked wrong, and so is every one by its length."""
    path = world.home / "scored.parquet"
    even = pl.int_range(pl.len()) % 2 == 0
    scored = pl.read_parquet(path).with_columns(
        trained=pl.when(even | (pl.col("fate") == "train")).then(1.0).otherwise(-1.0), longer=-1.0
    )
    scored.write_parquet(path)
    world.data[REWARD] = replace(
        world.data[REWARD],
        held_out=accuracy_of(scored, "held_out"),
        longer=accuracy_of(scored, "held_out", "longer"),
        against_longer=against_longer(scored),
    )


REWARD_TRAINING: dict[tuple[str, str], Mutation] = {
    (REWARD, "held_out_accuracy_beats_chance"): right_by_chance,
    (REWARD, "reward_beats_longer_is_better"): reward("against_longer", p_value=0.06),
    (REWARD, "accuracies_follow_from_the_pairs"): reward("train", value=0.9),
    (REWARD, "no_group_in_both_splits"): group_in_both_splits,
    (REWARD, "reward_model_is_complete"): fields(REWARD, manifest_sha256="0" * 64),
    (REWARD, "reward_weights_changed"): reward_of_the_base,
}
