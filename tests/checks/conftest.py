"""Good data of every asset, by hand, and a way to run the checks that read it."""

import inspect
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

import checks
from resources.hardware import TIERS, Hardware
from resources.inference import Inference
from resources.partitions import BATCHES
from resources.reward import RewardModels
from resources.storage import SynthHome
from synth_assets.embedded import model_path
from synth_assets.llm.protocols import Message, RewardModel
from synth_assets.schemas.records import (
    AdapterRecord,
    ChampionRecord,
    Clause,
    Comparison,
    Decision,
    Metric,
    ModelRecord,
)
from synth_assets.schemas.tables import (
    BENCHMARK_ITEMS,
    CANDIDATES,
    INSTRUCTIONS,
    ITEM_SCORES,
    JUDGED,
    PAIRS,
    REFERENCE_LOGPROBS,
    REJECTED,
    SFT_ROWS,
)
from synth_assets.schemas.tier import Tier
from synth_assets.stages.efficiency.frontier import METRICS, compare
from synth_assets.stages.efficiency.grid import VARIANTS
from synth_assets.stages.efficiency.latencies import LATENCIES
from synth_assets.stages.efficiency.variants import variant_of
from synth_assets.stages.reward_training.accuracy import SCORED_PAIRS, TrainedReward, accuracy_of, against_longer
from synth_assets.stages.reward_training.pairs import HELD_OUT, TRAIN
from synth_assets.storage.manifests import folder_hash, write_manifest
from synth_assets.training.methods import CONTROLS
from synth_assets.training.specs import DpoSpec, LoraSpec, OnPolicyDpoSpec, PromptTuningSpec, RejectionSamplingSpec

BATCH = "2026-W47"
MIN_ROWS = 10
BASE_WEIGHTS = "base_weights"  # folder with the weights of owner/base
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADAPTERS = {
    "lora_adapter": "lora",
    "prompt_tuning_adapter": "prompt_tuning",
    "dpo_adapter": "dpo",
    "dpo_control_adapter": "dpo",
    "rejection_sampling_adapter": "rejection_sampling",
    "on_policy_dpo_adapter": "on_policy_dpo",
    "on_policy_dpo_control_adapter": "on_policy_dpo",
}

Data = dict[str, Any]
Verdicts = dict[tuple[str, str], bool]


@dataclass
class World:
    """The value of every asset, and the folder that their files lie in."""

    home: Path
    data: Data = field(default_factory=dict)


def instructions(rows: int, prefix: str, batch: str = BATCH) -> pl.DataFrame:
    """Rows that say something different each; the response repeats the words of its instruction."""
    return pl.DataFrame(
        [
            {
                "row_id": f"{prefix}{i:03}",
                "source": "magpie",
                "batch": batch,
                "history": [],
                "instruction": f"Ball {i} of the {prefix} ones: what colour is it?",
                "response": f"Ball {i} of the {prefix} ones is red.",
                "model": "teacher",
                "revision": COMMIT,
                "engine": "transformers",
                "template": "llama3",
                "topic": None,
                "seed": i,
                "temperature": 1.0,
                "response_temperature": 0.7,
                "top_p": 1.0,
                "instruction_tokens": 8,
                "response_tokens": 9,
                "history_tokens": 0,
                "instruction_finish_reason": "stop",
                "response_finish_reason": "stop",
            }
            for i in range(rows)
        ],
        schema=INSTRUCTIONS,
    )


def sft_rows(rows: int) -> pl.DataFrame:
    """The last fifth is validation; each row is a group of its own."""
    split = pl.when(pl.int_range(pl.len()) < rows * 4 // 5).then(pl.lit("train")).otherwise(pl.lit("validation"))
    judged = instructions(rows, "kept").with_columns(score=pl.lit(1.0), group=pl.col("row_id"), split=split)
    return judged.select(SFT_ROWS.names()).cast(SFT_ROWS)


def candidates(sft: pl.DataFrame) -> pl.DataFrame:
    """Two responses to each of the first twelve train rows, of rewards 0 and 1."""
    rows = sft.head(12).select("row_id", "group", "split", "history", "instruction")
    good = [
        rows.with_columns(
            candidate_id=pl.concat_str("row_id", pl.lit(f"-{reward}")),
            response=pl.lit(f"Answer of reward {reward}."),
            temperature=pl.lit(0.8),
            seed=pl.lit(reward),
            response_tokens=pl.lit(5),
            finish_reason=pl.lit("stop"),
            model=pl.lit("teacher"),
            revision=pl.lit(COMMIT),
            reward=pl.lit(float(reward)),
        )
        for reward in (0, 1)
    ]
    return pl.concat(good).select(CANDIDATES.names()).cast(CANDIDATES)


def pairs(sft: pl.DataFrame) -> pl.DataFrame:
    """One pair for each of the first twelve train rows: ten to train on, two to validate; and an imported one."""
    made = sft.head(12).select(
        pl.concat_str(pl.lit("p"), "row_id").alias("pair_id"),
        "row_id",
        "group",
        pl.when(pl.int_range(pl.len()) < 10).then(pl.lit("train")).otherwise(pl.lit("validation")).alias("split"),
        pl.lit("candidates").alias("source"),
        "history",
        "instruction",
        pl.lit("A good answer.").alias("chosen"),
        pl.lit("A bad answer.").alias("rejected"),
        pl.lit(1.5).alias("chosen_reward"),
        pl.lit(0.5).alias("rejected_reward"),
        pl.lit(1.0).alias("margin"),
    )
    imported = pl.DataFrame(
        {"pair_id": ["imported"], "row_id": ["imported"], "group": ["imported"], "split": ["train"]}
        | {
            "source": ["mine.jsonl"],
            "history": [[]],
            "instruction": ["Say hello."],
            "chosen": ["Hello!"],
            "rejected": ["Bye."],
        },
    )
    return pl.concat([made.cast(PAIRS), imported], how="diagonal_relaxed").cast(PAIRS)


def logprobs(pairs: pl.DataFrame) -> pl.DataFrame:
    """The reference finds each chosen response likelier."""
    return pairs.select("pair_id", chosen_logprob=pl.lit(-3.0), rejected_logprob=pl.lit(-4.0)).cast(REFERENCE_LOGPROBS)


SUITE_OF = {"generation": "domain", "choice": "world_choice"}
METRIC_OF = {"domain": "passed", "world_choice": "acc"}


def benchmark_items() -> pl.DataFrame:
    """Four generation and four choice items of each split."""
    rows = [
        {
            "item_id": f"{kind}-{split}-{i}",
            "suite": SUITE_OF[kind],
            "split": split,
            "kind": kind,
            "prompt": f"In the {split} item {i} of {kind}, what comes next?",
            "choices": ["one", "two"] if kind == "choice" else [],
            "answer": "1" if kind == "choice" else '{"facts": ["two"]}',
            "cluster": f"cluster {i}",
            "item_hash": f"hash-{kind}-{split}-{i}",
        }
        for kind in ("generation", "choice")
        for split in ("validation", "test")
        for i in range(4)
    ]
    return pl.DataFrame(rows, schema=BENCHMARK_ITEMS)


def scores(items: pl.DataFrame) -> pl.DataFrame:
    """The base and all adapters on the first three items of each suite and split; the fourth was not drawn."""
    drawn = items.filter(~pl.col("item_id").str.ends_with("-3"))
    tables = [
        drawn.select(
            pl.lit(model).alias("model"),
            pl.lit("f" * 16).alias("fingerprint"),
            "suite",
            "split",
            "item_id",
            "cluster",
            pl.col("suite").replace_strict(METRIC_OF).alias("metric"),
            (pl.col("cluster") == "cluster 0").cast(pl.Float64).alias("score"),
            pl.lit("two").alias("response"),
            pl.when(pl.col("kind") == "generation").then(pl.lit("stop")).alias("finish_reason"),
        )
        for model in ("base", *ADAPTERS)
    ]
    return pl.concat(tables).cast(ITEM_SCORES)


def write_adapter(folder: Path, weights: Mapping[str, np.ndarray], curve: Sequence[Mapping[str, float]] = ()) -> str:
    """A complete adapter folder; returns the hash of its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}", "utf-8")
    return write_manifest(folder, {"outcome": {"curve": list(curve), "phases": [{"last_step": len(curve)}]}})


SPECS = {
    "lora_adapter": LoraSpec(rank=2, target_modules=["q_proj"]),
    "prompt_tuning_adapter": PromptTuningSpec(virtual_tokens=4),
    "dpo_adapter": DpoSpec(),
    "dpo_control_adapter": DpoSpec(dpo_weight=0.0, sft_weight=1.0),
    "rejection_sampling_adapter": RejectionSamplingSpec(),
    "on_policy_dpo_adapter": OnPolicyDpoSpec(),
    "on_policy_dpo_control_adapter": OnPolicyDpoSpec(dpo_weight=0.0, sft_weight=1.0),
}


def good_curve(name: str) -> list[dict[str, float]]:
    """Ten steps: one of warm-up from 0, then half a cosine over nine."""
    rate = SPECS[name].learning_rate
    rates = [0.0, *(rate * 0.5 * (1 + math.cos(math.pi * step / 9)) for step in range(9))]
    losses = [2.0 - step / 10 for step in range(10)]
    return [
        {"step": step + 1, "loss": loss, "learning_rate": rate, "reward_margin": step / 10}
        for step, (loss, rate) in enumerate(zip(losses, rates, strict=True))
    ]


def good_weights(name: str) -> dict[str, np.ndarray]:
    """Weights that differ between adapters."""
    value = float(1 + list(ADAPTERS).index(name))
    if name == "prompt_tuning_adapter":
        return {"prompt_embeddings": np.full((4, 8), value, np.float32)}
    return {
        "layers.0.q_proj.lora_A.weight": np.ones((2, 8), np.float32),
        "layers.0.q_proj.lora_B.weight": np.full((8, 2), value, np.float32),
    }


def adapter(home: Path, name: str) -> AdapterRecord:
    """A good adapter with its files."""
    path = f"adapters/{name}"
    return AdapterRecord(
        name=name,
        method=ADAPTERS[name],  # pyright: ignore[reportArgumentType]
        role="control" if name in CONTROLS else "candidate",
        fingerprint="f" * 16,
        path=path,
        manifest_sha256=write_adapter(home / path, good_weights(name), good_curve(name)),
        model_version="1",
        mlflow_run_id="run",
        base="base",
        base_revision=COMMIT,
        spec=asdict(SPECS[name]),
        data_versions={},
        trainable_parameters=32,  # two matrices of 2 x 8, or one of 4 x 8
        total_parameters=1_000,
        peak_memory_bytes=1,
        peak_memory_kind="derived",
        tokens_per_s=1.0,
        seconds=1.0,
        cost_usd=0.0,
        final_loss=1.1,
    )


def metric(model: str, split: str) -> Metric:
    """Two of six items right; the Wilson interval is not recomputed here."""
    return Metric(
        model=model,
        suite="domain",
        split=split,
        metric="passed",
        value=1 / 3,
        n=6,
        ci_low=0.1,
        ci_high=0.7,
        interval="wilson 0.95",
        shots=0,
        harness="verifier",
        data_hash="d" * 16,
        items_sha256="i" * 16,
        mlflow_run_id="run",
    )


def study(home: Path) -> Data:
    """One variant of the efficiency study with its files, its latencies, and the study of it."""
    cell, seed = VARIANTS["r8-all-none-s42"]
    path, numbers = "adapters/variant", dict.fromkeys(METRICS, 1.0) | {"trainable_parameters": 32.0}
    variant = replace(
        variant_of(cell, seed, "b" * 16),
        path=path,
        manifest_sha256=write_adapter(home / path, good_weights("lora_adapter"), good_curve("lora_adapter")),
        spec=asdict(SPECS["lora_adapter"]),
        rows={"train": 8, "validation": 2, "test": 2},
        numbers=numbers | {"test_tokens": 9.0, "items": 4.0},
    )
    timed = {"variant": variant.name, "cell": cell.name, "weights": "w", "engine": "transformers", "prompts": 4}
    times = {"new_tokens": 9, "p50_s": 0.1, "p95_s": 0.2, "p99_s": 0.2, "tokens_per_s": 20.0, "other_cores": 0.1}
    return {
        "lora_variant": {variant.name: variant},
        "variant_latencies": pl.DataFrame([timed | times], schema=LATENCIES),
        "efficiency_frontier": compare({variant.name: variant}, [variant.name], variant.basis),
    }


def trained_reward(home: Path) -> TrainedReward:
    """A reward model that ranks 20 held-out pairs right, half of which have a longer rejected answer."""
    path, weight = "reward_models/reward", "model.layers.0.self_attn.q_proj.weight"
    for folder, value in ((home / path, 2.0), (home / BASE_WEIGHTS, 1.0)):
        folder.mkdir(parents=True)
        save_file({weight: np.full((4, 4), value, np.float32)}, folder / "model.safetensors")
    numbers = range(60)
    columns = {
        "row_id": [f"r{i}" for i in numbers],
        "fate": [HELD_OUT if i < 20 else TRAIN for i in numbers],
        "pair_id": [f"p{i}" for i in numbers],
        "group": [f"g{i}" for i in numbers],
        "trained": [1.0 for _ in numbers],
        "longer": [(-1.0) ** i for i in numbers],
        "current": [None for _ in numbers],
    }
    scored = pl.DataFrame(columns, schema=SCORED_PAIRS)
    scored.write_parquet(home / "scored.parquet")
    return TrainedReward(
        fingerprint="f" * 16,
        path=path,
        pairs="scored.parquet",
        manifest_sha256=write_manifest(home / path, {}),
        base="owner/base",
        base_revision=COMMIT,
        spec={"target_modules": ["q_proj"]},
        train=accuracy_of(scored, TRAIN),
        held_out=accuracy_of(scored, HELD_OUT),
        longer=accuracy_of(scored, HELD_OUT, "longer"),
        against_longer=against_longer(scored),
    )


def models(home: Path) -> dict[str, ModelRecord]:
    """A teacher in a folder, and a base and a reward model on a hub."""
    folder = home / "teacher"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(model_path("teacher") / name, folder / name)
    teacher = ModelRecord("teacher", str(folder), folder_hash(folder), "embedded", 512)
    return {
        "teacher_model": teacher,
        "base_model": replace(teacher, role="base", location="owner/base", revision=COMMIT),
        "reward_model": replace(teacher, role="reward", location="owner/reward", revision=COMMIT),
    }


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
        instance = dg.DagsterInstance.ephemeral()
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
