from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from safetensors import safe_open

from synth_assets.llm.loading import load_adapter
from synth_assets.training.data import encode_rows
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import answer_logprobs
from synth_assets.training.prompt_tuning import train_prompt
from synth_assets.training.specs import PromptTuningSpec

SPEC = PromptTuningSpec(virtual_tokens=5, learning_rate=0.05, epochs=4.0, initialisation="SAMPLE_VOCAB", batch_size=8)


def test_a_prompt_is_trained_and_loads(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup, tmp_path: Path
) -> None:
    trained = train_prompt(load(), rows, SPEC, setup)
    model, tokenizer = load()
    width = model.config.hidden_size
    assert trained.outcome.trainable_parameters == 5 * width
    trained.save(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as weights:
        assert weights.get_tensor("prompt_embeddings").shape == (5, width)
    examples = encode_rows(rows, tokenizer, 256)
    before = sum(answer_logprobs(model, examples, batch_size=8))
    assert sum(answer_logprobs(load_adapter(model, tmp_path), examples, batch_size=8)) > before


def test_rows_too_long_for_the_soft_prompt_are_dropped_and_reported(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    _, tokenizer = load()
    lengths = [len(e) for e in encode_rows(rows.filter(pl.col("split") == "train"), tokenizer, 256)]
    lines: list[str] = []
    tight = replace(setup, context_tokens=max(lengths), progress=lines.append)
    train_prompt(load(), rows, replace(SPEC, epochs=1.0, batch_size=1), tight)
    left_out = sum(length + 5 > max(lengths) for length in lengths)
    assert 0 < left_out < len(lengths)
    assert lines[0] == f"an_adapter: dropped {left_out} rows that exceed the context with 5 virtual tokens"
    with pytest.raises(TrainingError, match="no rows"):
        train_prompt(load(), rows, replace(SPEC, virtual_tokens=200), tight)
