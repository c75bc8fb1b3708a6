import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.storage.manifests import folder_hash
from synth_assets.training.data import encode_rows
from synth_assets.training.engine import LoadedBase, Trained, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.logprobs import answer_logprobs
from synth_assets.training.sft import packed_batches, train_lora, train_on_best
from synth_assets.training.specs import LoraSpec, RejectionSamplingSpec

pytestmark = pytest.mark.integration

SPEC = LoraSpec(rank=4, alpha=8, learning_rate=5e-3, epochs=2.0, batch_size=8)


def test_outcome_has_the_measurements(lora: Trained) -> None:
    outcome = lora.outcome
    losses = [point["loss"] for point in outcome.curve if "loss" in point]
    assert len(losses) == outcome.steps == 8  # 28 rows in batches of 8, twice
    assert losses[-1] < losses[0]
    assert sum("eval_loss" in point for point in outcome.curve) == 2
    assert 0 < outcome.trainable_parameters < outcome.total_parameters
    assert outcome.peak_memory_kind == "derived"
    assert outcome.tokens_per_s > outcome.tokens / outcome.seconds > 0  # validation is left out of the rate


def test_tokens_are_counted_without_padding(lora: Trained, load: Callable[[], LoadedBase], rows: pl.DataFrame) -> None:
    _, tokenizer = load()
    train = encode_rows(rows.filter(pl.col("split") == "train"), tokenizer, 256)
    assert lora.outcome.tokens == 2 * sum(len(example) for example in train)


def test_the_rate_logged_is_the_rate_configured(lora: Trained) -> None:
    rates = [point["learning_rate"] for point in lora.outcome.curve if "learning_rate" in point]
    # warm-up of ceil(.03 x 8) = 1 step from 0, then half a cosine over the 7 left
    expected = [0.0] + [5e-3 * 0.5 * (1 + math.cos(math.pi * step / 7)) for step in range(7)]
    assert rates == pytest.approx(expected)


def test_the_loss_is_the_mean_over_answer_tokens(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    model, tokenizer = load()
    train = rows.filter(pl.col("split") == "train")
    examples = encode_rows(train, tokenizer, 256)
    nats = -sum(answer_logprobs(model, examples, batch_size=4))
    spec = replace(SPEC, batch_size=28, dropout=0.0)
    first = train_lora((model, tokenizer), train, spec, setup).outcome.curve[0]
    assert first["loss"] == pytest.approx(nats / sum(len(example.answer) for example in examples), rel=1e-4)


def test_a_plain_peft_load_gives_the_trained_model(
    lora_folder: Path, load: Callable[[], LoadedBase], rows: pl.DataFrame
) -> None:
    from peft import PeftModel

    model, tokenizer = load()
    examples = encode_rows(rows, tokenizer, 256)
    before = sum(answer_logprobs(model, examples, batch_size=8))
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):  # PEFT's, with any adapter
        adapted = PeftModel.from_pretrained(model, str(lora_folder))
    assert sum(answer_logprobs(adapted, examples, batch_size=8)) > before


def test_the_folder_holds_the_adapter_alone(lora_folder: Path) -> None:
    assert sorted(p.name for p in lora_folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((lora_folder / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "embedded:base"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_equal_trainings_give_equal_files(
    lora_folder: Path, load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup, tmp_path: Path
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    train_lora(load(), rows, SPEC, setup).save(again)
    train_lora(load(), rows, replace(SPEC, seed=43), setup).save(other)
    assert folder_hash(again) == folder_hash(lora_folder)
    assert folder_hash(other) != folder_hash(lora_folder)


def test_packed_batches_hold_the_rows_of_a_batch(setup: TrainingSetup) -> None:
    # four rows of 10 tokens on average are 40; a longer row is never cut
    spec = LoraSpec(batch_size=4)
    assert packed_batches([5, 15, 10], spec, setup) == {"per_device_train_batch_size": 1, "max_length": 40}
    assert packed_batches([1, 1, 50], LoraSpec(batch_size=1), setup)["max_length"] == 50


# fault 17
def test_unpacked_rows_on_a_packing_tier_are_reported(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    lines: list[str] = []
    packing = replace(setup, tier=replace(setup.tier, grouping="packing"), progress=lines.append)
    once = replace(SPEC, epochs=1.0, scored_rows=0)
    message = "the tier packs rows, but this training has the attention sdpa, not flash_attention_2"
    outcome = train_lora(load(), rows, once, packing).outcome
    assert [event.partition(":")[0] for event in outcome.events] == [message]
    assert lines[0].startswith(f"an_adapter: {message}")
    expected = replace(once, order="random")  # asked for, so there is nothing to tell
    assert train_lora(load(), rows, expected, packing).outcome.events == []


def test_a_training_that_diverges_stops(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    with pytest.raises(TrainingError, match=r"diverged|not finite"):
        train_lora(load(), rows, replace(SPEC, learning_rate=1e30), setup)


def test_rejection_sampling_continues_the_adapter(
    lora: Trained, lora_folder: Path, load: Callable[[], LoadedBase], pairs: pl.DataFrame, setup: TrainingSetup
) -> None:
    spec = RejectionSamplingSpec(learning_rate=1e-3, batch_size=8)
    outcome = train_on_best(load(), lora_folder, pairs, spec, setup).outcome
    assert outcome.steps == 4
    assert outcome.trainable_parameters == lora.outcome.trainable_parameters
    assert outcome.curve[0]["loss"] < lora.outcome.curve[0]["loss"]
