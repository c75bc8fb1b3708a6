"""Good data of every asset, by hand."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from synth_assets.embedded import model_path
from synth_assets.schemas.records import (
    AdapterRecord,
    Metric,
    ModelRecord,
)
from synth_assets.schemas.tables import (
    BENCHMARK_ITEMS,
    CANDIDATES,
    INSTRUCTIONS,
    ITEM_SCORES,
    PAIRS,
    REFERENCE_LOGPROBS,
    SFT_ROWS,
)
from synth_assets.stages.efficiency.frontier import METRICS, compare
from synth_assets.stages.efficiency.grid import VARIANTS
from synth_assets.stages.efficiency.latencies import LATENCIES
from synth_assets.stages.efficiency.variants import variant_of
from synth_assets.stages.reward_training.accuracy import SCORED_PAIRS, TrainedReward, accuracy_of, against_longer
from synth_assets.stages.reward_training.pairs import HELD_OUT, TRAIN
from synth_assets.storage.manifests import folder_hash, write_manifest
from synth_assets.training.methods import CONTROLS
from synth_assets.training.specs import DpoSpec, LoraSpec, OnPolicyDpoSpec, PromptTuningSpec, RejectionSamplingSpec
from tests.support.records import make_adapter

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
    return make_adapter(
        name=name,
        method=ADAPTERS[name],
        role="control" if name in CONTROLS else "candidate",
        fingerprint="f" * 16,
        path=path,
        manifest_sha256=write_adapter(home / path, good_weights(name), good_curve(name)),
        model_version="1",
        mlflow_run_id="run",
        base_revision=COMMIT,
        spec=asdict(SPECS[name]),
        trainable_parameters=32,  # two matrices of 2 x 8, or one of 4 x 8
        total_parameters=1_000,
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
