"""Fixtures with good data of every asset, and a way to run the checks that read it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

import checks
from resources.hardware import TIERS, Hardware
from resources.inference import Inference
from resources.partitions import BATCHES
from resources.reward import RewardModels
from resources.storage import SynthHome
from synth_assets.llm.protocols import Message, RewardModel
from synth_assets.schemas.records import (
    ChampionRecord,
    Clause,
    Comparison,
    Decision,
    ModelRecord,
)
from synth_assets.schemas.tables import (
    JUDGED,
    REJECTED,
)
from synth_assets.schemas.tier import Tier
from tests.support.exports import exports
from tests.support.world import (
    ADAPTERS,
    BASE_WEIGHTS,
    BATCH,
    MIN_ROWS,
    Verdicts,
    World,
    adapter,
    benchmark_items,
    candidates,
    instructions,
    logprobs,
    metric,
    models,
    pairs,
    scores,
    sft_rows,
    study,
    trained_reward,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Data on which every check passes."""
    sft = sft_rows(40)
    judged = sft.select(JUDGED.names())
    items, made_pairs = benchmark_items(), pairs(sft)
    rejected = instructions(8, "dropped").with_columns(reason=pl.lit("too_short"), detail=pl.lit("1 word"))
    decision = Decision(
        outcome="promoted",
        candidate="dpo_adapter",
        candidate_version="2",
        opponent="base",
        opponent_version="",
        clauses=[Clause("better", passed=True, actual=".5", expected=".3")],
        reason="all clauses held",
    )
    return World(
        tmp_path,
        {
            **models(tmp_path),
            "raw_instructions": {BATCH: instructions(40, "raw"), "first": instructions(40, "older", "first")},
            "imported_instructions": instructions(20, "mine"),
            "imported_preferences": made_pairs,
            "filtered_preferences": made_pairs.filter(source="mine.jsonl"),
            "rejected_preferences": made_pairs.head(2).with_columns(
                pl.concat_str(pl.lit("rejected-"), "pair_id").alias("pair_id"),
                reason=pl.lit("near_duplicate"),
                detail=pl.lit("repeats imported"),
            ),
            "benchmark_items": items,
            "filtered_instructions": judged,
            "rejected_instructions": rejected.select(REJECTED.names()),
            "sft_dataset": sft,
            "response_candidates": candidates(sft),
            "preference_pairs": made_pairs,
            "reference_logprobs": logprobs(made_pairs),
            "on_policy_candidates": candidates(sft).with_columns(model=pl.lit("owner/base+" + "f" * 16)),
            "on_policy_pairs": made_pairs.filter(source="candidates"),
            "on_policy_reference_logprobs": logprobs(made_pairs.filter(source="candidates")),
            **{name: adapter(tmp_path, name) for name in ADAPTERS},
            "benchmark_scores": scores(items),
            "comparison": Comparison(
                metrics=[metric(model, split) for model in ("base", *ADAPTERS) for split in ("validation", "test")],
                tests=[],
                candidate="dpo_adapter",
                failures={},
            ),
            **study(tmp_path),
            "trained_reward_model": trained_reward(tmp_path),
            **exports(tmp_path),
            "promotion_decision": decision,
            "champion": ChampionRecord(
                version="2",
                name="dpo_adapter",
                fingerprint="f" * 16,
                path="adapters/dpo_adapter",
                previous_version="",
                action="promoted",
                moved_by="a person",
                moved_at="2026-11-20T12:00:00+00:00",
                dagster_run_id="run",
                reason="all clauses held",
            ),
        },
    )


class SmallHardware(Hardware):
    """The cpu tier, content with few rows."""

    def limits(self) -> Tier:
        return replace(TIERS["cpu"], min_rows=MIN_ROWS)


class LocalInference(Inference):
    """Finds the weights of the base in a folder of the world."""

    world: str

    def folder(self, model: ModelRecord) -> Path:
        return Path(self.world) / BASE_WEIGHTS if model.role == "base" else super().folder(model)


class SharedWords:
    """Rewards a response by the words it shares with its instruction; backwards, by those it does not."""

    model, revision = "shared words", "1"

    def __init__(self, location: str) -> None:
        self.sign = -1.0 if location == "owner/backwards" else 1.0

    def score(self, pairs: Sequence[tuple[str, str]], histories: Sequence[Sequence[Message]] = ()) -> np.ndarray:
        shared = [len(set(asked.strip("?").split()) & set(answer.split())) for asked, answer in pairs]
        return self.sign * np.array(shared, dtype=np.float64)


class SharedWordsModels(RewardModels):
    """Loads SharedWords."""

    def load(self, record: ModelRecord) -> RewardModel:
        return SharedWords(record.location)


def stored(world: World, asset: str) -> object:
    """An asset's value as it is loaded: tables lazily, partitioned ones by key."""
    value = world.data[asset]
    if isinstance(value, dict):
        return {partition: one.lazy() if isinstance(one, pl.DataFrame) else one for partition, one in value.items()}
    return value.lazy() if isinstance(value, pl.DataFrame) else value


class WorldStorage(dg.IOManager):
    """Gives out what a World holds."""

    def __init__(self, world: World) -> None:
        self.world = world

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Keep nothing: the world is given."""

    def load_input(self, context: dg.InputContext) -> object:
        return stored(self.world, context.asset_key.path[-1])


@pytest.fixture(scope="session")
def all_checks() -> list[dg.AssetChecksDefinition]:
    """Every check of the package."""
    return list(dg.load_asset_checks_from_package_module(checks))


def stub_asset(name: str) -> dg.AssetsDefinition:
    """An asset whose value the world's storage gives out."""
    partitions = BATCHES if name == "raw_instructions" else None

    @dg.asset(name=name, partitions_def=partitions)
    def stub() -> None:
        """Nothing is computed."""

    return stub


@dataclass(frozen=True)
class RunContext:
    """What checks read of the context of their run."""

    selected_asset_check_keys: set[dg.AssetCheckKey]
    partition_key: str = BATCH
    has_partition_key: bool = True


def readers(definitions: Sequence[dg.AssetChecksDefinition], assets: Sequence[str]) -> list[dg.AssetChecksDefinition]:
    """The checks that read any of `assets`; all where none is named."""
    read = {dg.AssetKey(asset) for asset in assets}
    return [c for c in definitions if not assets or read & {*c.keys_by_input_name.values()}]


def resources_of(world: World) -> dict[str, Any]:
    hardware = SmallHardware(tier="cpu")
    return {
        "home": SynthHome(folder=str(world.home)),
        "hardware": hardware,
        "inference": LocalInference(hardware=hardware, world=str(world.home)),
        "rewards": SharedWordsModels(hardware=hardware),
    }


def verdict_of(result: dg.AssetCheckResult, definition: dg.AssetChecksDefinition) -> tuple[tuple[str, str], bool]:
    [key] = [k for k in definition.check_keys if result.check_name in (None, k.name)]
    return (key.asset_key.path[-1], key.name), bool(result.passed)


@pytest.fixture
def run_checks(all_checks: list[dg.AssetChecksDefinition]) -> Callable[..., Verdicts]:
    """Call the checks that read any of the assets, without Dagster: (asset, check) -> whether it passed."""

    def run(world: World, *assets: str) -> Verdicts:
        verdicts: Verdicts = {}
        for definition in readers(all_checks, assets):
            function = definition.op.compute_fn.decorated_fn
            values = {name: stored(world, key.path[-1]) for name, key in definition.keys_by_input_name.items()}
            known = {"context": RunContext({*definition.check_keys}), **resources_of(world), **values}
            given = function(**{name: known[name] for name in inspect.signature(function).parameters})
            results = [given] if isinstance(given, dg.AssetCheckResult) else given
            verdicts |= dict(verdict_of(result, definition) for result in results)
        return verdicts

    return run


@pytest.fixture
def run_in_dagster(all_checks: list[dg.AssetChecksDefinition]) -> Callable[..., Verdicts]:
    """Materialise the assets and run the checks that read them, as a job does."""

    def run(world: World, *assets: str) -> Verdicts:
        reading = readers(all_checks, assets)
        names = sorted({key.path[-1] for c in reading for key in c.keys_by_input_name.values()})
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("batches", [BATCH])
            result = dg.materialize(
                [*map(stub_asset, names), *reading],
                selection=dg.AssetSelection.checks(*reading) | dg.AssetSelection.assets(*names),
                partition_key=BATCH if "raw_instructions" in names else None,
                instance=instance,
                raise_on_error=False,
                resources=resources_of(world)
                | {"io_manager": dg.IOManagerDefinition.hardcoded_io_manager(WorldStorage(world))},
            )
            return {(e.asset_key.path[-1], e.check_name): e.passed for e in result.get_asset_check_evaluations()}

    return run
