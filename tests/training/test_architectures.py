"""Train LoRA for one step on a tiny random model of each architecture in llm/catalog.py."""

from dataclasses import replace

import polars as pl
import pytest

from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.llm.catalog import FUSED, MODELS, SEPARATE, ModelDimensions, lora_parameters
from synth_assets.llm.loading import load_tokenizer, prepare_libraries
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.preconditions import check_targets
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec

pytestmark = pytest.mark.integration

TINY = ModelDimensions(layers=2, hidden=16, mlp=24, heads=4, key_value_heads=2, head=4, vocabulary=0)
ONE_STEP = LoraSpec(rank=2, alpha=4, epochs=1.0, batch_size=32, accumulation=1, warmup_ratio=0.0, scored_rows=0)
KINDS = {row.family: row for row in MODELS.values()}


def tiny(family: str) -> LoadedBase:
    """Return a random model of the family's architecture, with the embedded tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    prepare_libraries(TIERS["cpu"])
    tokenizer = load_tokenizer(model_path("base"))
    config = AutoConfig.for_model(
        {"llama3": "llama", "zephyr": "llama", "smollm2": "llama"}.get(family, family),
        num_hidden_layers=TINY.layers,
        hidden_size=TINY.hidden,
        intermediate_size=TINY.mlp,
        num_attention_heads=TINY.heads,
        num_key_value_heads=TINY.key_value_heads,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
    )
    set_seed(0)
    return AutoModelForCausalLM.from_config(config), tokenizer


@pytest.mark.parametrize("family", KINDS)
def test_the_row_s_modules_are_trained_for_a_step(family: str, rows: pl.DataFrame, setup: TrainingSetup) -> None:
    row = replace(KINDS[family], shape=TINY)
    spec = replace(ONE_STEP, target_modules=row.targets)
    outcome = train_lora(tiny(family), rows, spec, setup).outcome
    assert outcome.steps == 1
    assert outcome.trainable_parameters == lora_parameters(row, spec.rank)


def test_unknown_target_modules_raise_with_available_ones() -> None:
    phi, _ = tiny("phi3")
    with pytest.raises(TrainingError, match=r"q_proj, k_proj, .* match no layer; the model has .*qkv_proj"):
        check_targets(phi, LoraSpec(target_modules=SEPARATE))
    llama, _ = tiny("llama3")
    with pytest.raises(TrainingError, match=r"^target modules qkv_proj, gate_up_proj match no layer; .*q_proj"):
        check_targets(llama, LoraSpec(target_modules=FUSED))
