"""Train the embedded base in the precisions of the GPU tiers."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_causal_model, load_tokenizer, prepare_libraries
from synth_assets.schemas.tables import TURN
from synth_assets.schemas.tier import Tier
from synth_assets.training.dpo import train_dpo
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.logprobs import pair_logprobs, reference_policy
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import DpoSpec, LoraSpec

pytestmark = pytest.mark.gpu

SPEC = LoraSpec(rank=4, alpha=8, learning_rate=5e-3, epochs=2.0, batch_size=8, accumulation=1)
H200, T4 = TIERS["h200"], TIERS["t4"]
PRECISIONS = {
    "bfloat16, packed where FlashAttention is installed": H200,
    "bfloat16, padded": replace(H200, attention="sdpa", grouping="length"),
    "bfloat16, recomputed activations": replace(H200, attention="sdpa", grouping="length", memory_gb=16),
    "bfloat16 on int8": replace(H200, attention="sdpa", grouping="length", quantisation="int8"),
    "float16 on nf4": T4,
}


def loaded(tier: Tier) -> LoadedBase:
    prepare_libraries(tier)
    return load_causal_model(model_path("base"), tier), load_tokenizer(model_path("base"))


@pytest.fixture
def rows() -> pl.DataFrame:
    numbers = range(64)
    return pl.DataFrame(
        {
            "history": [[] for _ in numbers],
            "instruction": [f"What is {i} plus 1?" + " Please." * (i % 3) for i in numbers],
            "response": [f"It is {i + 1}." for i in numbers],
            "split": ["validation" if i % 8 == 0 else "train" for i in numbers],
        },
        schema_overrides={"history": pl.List(TURN)},
    )


@pytest.mark.parametrize("tier", PRECISIONS.values(), ids=PRECISIONS)
def test_lora_and_dpo_learn(tier: Tier, rows: pl.DataFrame, tmp_path: Path) -> None:
    setup = TrainingSetup("lora_adapter", "embedded:base", 256, tier, lambda _: None)
    lora = train_lora(loaded(tier), rows, SPEC, setup)
    assert lora.outcome.final_loss < lora.outcome.curve[0]["loss"]
    assert lora.outcome.peak_memory_kind == "measured"
    lora.save(tmp_path)
    pairs = rows.select(
        pl.format("p{}", pl.int_range(rows.height)).alias("pair_id"),
        "instruction",
        "split",
        pl.col("response").alias("chosen"),
        pl.lit("No idea, sorry.").alias("rejected"),
    )
    reference = pair_logprobs(reference_policy(loaded(tier), tmp_path, setup), pairs, setup)
    spec = DpoSpec(beta=0.2, learning_rate=1e-3, batch_size=8, accumulation=1)
    curve = train_dpo(loaded(tier), tmp_path, (pairs, reference), spec, setup).outcome.curve
    assert curve[0]["reward_margin"] == pytest.approx(0.0, abs=0.1)  # bfloat16 rounds sums of tens of nats
    assert curve[-1]["eval_reward_margin"] > 0
