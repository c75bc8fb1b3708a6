from dataclasses import replace

import polars as pl
import pytest

from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.llm.loading import load_causal_model, load_tokenizer, prepare_libraries
from synth_assets.training.engine import Trained, TrainingSetup
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec


def test_four_bit_training_continues_after_validation(lora: Trained, rows: pl.DataFrame, setup: TrainingSetup) -> None:
    pytest.importorskip("bitsandbytes")
    tier = replace(TIERS["cpu"], quantisation="nf4")
    prepare_libraries(tier)
    base = load_causal_model(model_path("base"), tier), load_tokenizer(model_path("base"))
    spec = LoraSpec(rank=4, alpha=8, learning_rate=5e-3, epochs=2.0, batch_size=8)
    outcome = train_lora(base, rows, spec, replace(setup, tier=tier)).outcome
    assert (outcome.trainable_parameters, outcome.total_parameters) == (
        lora.outcome.trainable_parameters,
        lora.outcome.total_parameters,
    )
    assert outcome.peak_memory_bytes < lora.outcome.peak_memory_bytes
    assert outcome.final_loss < outcome.curve[0]["loss"] / 2
