import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from resources.hardware import TIERS, Hardware
from resources.inference import Inference
from resources.reward import RewardModels
from synth_assets.llm.errors import ModelFilesError
from synth_assets.llm.sources.home_folders import HOME, home_model_folder
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import TURN
from synth_assets.storage.manifests import folder_hash, read_manifest
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.engine import LoadedBase
from synth_assets.training.errors import TrainingError
from synth_assets.training.plan import TrainingContext
from synth_assets.training.reward import classifier_of, train_or_load_reward
from synth_assets.training.specs import RewardSpec

SPEC = RewardSpec(learning_rate=5e-3, epochs=4.0, batch_size=16, dropout=0.0)
COLOURS = ("red", "blue", "green", "black", "white")
Load = Callable[[], LoadedBase]


def planted(pairs: int, start: int = 0) -> pl.DataFrame:
    """Pairs of equal length: the chosen answer is polite."""
    numbers = range(start, start + pairs)
    answers = [f"The ball of number {i} is {COLOURS[i % 5]}" for i in numbers]
    return pl.DataFrame(
        {
            "pair_id": [f"p{i}" for i in numbers],
            "history": [[] for _ in numbers],
            "instruction": [f"What colour has ball {i}?" for i in numbers],
            "chosen": [f"{answer}, thanks." for answer in answers],
            "rejected": [f"{answer}, stupid." for answer in answers],
        },
        schema_overrides={"history": pl.List(TURN)},
    )


@pytest.fixture(scope="module")
def base() -> ModelRecord:
    return Inference(hardware=Hardware(tier="cpu")).resolve("base")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def context_of(home: Path) -> TrainingContext:
    return TrainingContext(home, home / "reward_models", home / "shards", TIERS["cpu"], lambda _: None)


@pytest.fixture(scope="module")
def stored(home: Path, base: ModelRecord, load: Load) -> StoredAdapter:
    return train_or_load_reward((SPEC, base, planted(96)), context_of(home), load)


def margins(home: Path, location: str, pairs: pl.DataFrame) -> np.ndarray:
    hardware = Hardware(tier="cpu", reward=location)
    model = RewardModels(hardware=hardware).load(Inference(hardware=hardware).resolve("reward"))
    chosen, rejected = (
        model.score(list(pairs.select("instruction", side).iter_rows())) for side in ("chosen", "rejected")
    )
    return chosen - rejected


def test_it_ranks_held_out_pairs_by_the_planted_property(home: Path, stored: StoredAdapter) -> None:
    held_out = planted(40, start=1_000)
    assert (margins(home, str(stored.folder), held_out) > 0).mean() > 0.9
    assert stored.outcome.curve[0]["reward_accuracy"] < stored.outcome.curve[-1]["reward_accuracy"]
    assert stored.outcome.total_parameters > stored.outcome.trainable_parameters > 0


def test_the_folder_is_complete_and_is_found_again(
    home: Path, base: ModelRecord, stored: StoredAdapter, load: Load
) -> None:
    names = {path.name for path in stored.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "manifest.json"} <= names
    assert read_manifest(stored.folder)["fingerprint"] == stored.folder.name

    def fail() -> LoadedBase:
        raise AssertionError("the base was loaded")

    again = train_or_load_reward((SPEC, base, planted(96)), context_of(home), fail)
    assert again.reused
    assert again.folder == stored.folder
    assert not (home / "checkpoints").exists() or not list((home / "checkpoints").iterdir())


def test_lora_and_head_differ_from_the_base(stored: StoredAdapter, load: Load) -> None:
    from safetensors.torch import load_file

    trained = load_file(stored.folder / "model.safetensors")
    model, _ = load()
    before = dict(model.named_parameters())
    changed = [name for name, tensor in trained.items() if name in before and not tensor.equal(before[name])]
    assert len(changed) == 7 * model.config.num_hidden_layers
    assert "score.weight" in trained
    assert not any("embed" in name for name in changed)


def test_a_location_below_the_home_survives_a_move(
    home: Path, stored: StoredAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_HOME", str(home))
    hardware = Hardware(tier="cpu", reward=str(stored.folder))
    record = Inference(hardware=hardware).resolve("reward")
    assert record.location == f"{HOME}reward_models/{stored.fingerprint}"
    assert record.name == stored.fingerprint
    moved = tmp_path / "elsewhere"
    shutil.copytree(home, moved)
    monkeypatch.setenv("SYNTH_HOME", str(moved))
    model = RewardModels(hardware=Hardware(tier="cpu")).load(record)
    pairs = list(planted(4).select("instruction", "chosen").iter_rows())
    monkeypatch.setenv("SYNTH_HOME", str(home))
    assert model.score(pairs).tolist() == RewardModels(hardware=hardware).load(record).score(pairs).tolist()


@pytest.mark.parametrize("path", ["", ".", "../outside", "no_such_folder"])
def test_a_home_location_must_be_a_folder_below_the_home(path: str) -> None:
    with pytest.raises(ModelFilesError, match="folder below SYNTH_HOME"):
        home_model_folder(HOME + path)


def test_an_interrupted_training_resumes_to_the_same_weights(base: ModelRecord, load: Load, tmp_path: Path) -> None:
    spec, rows = replace(SPEC, epochs=2.0), planted(48)
    whole = train_or_load_reward((spec, base, rows), context_of(tmp_path / "whole"), load)
    home = tmp_path / "interrupted"
    lines: list[str] = []

    def loaded_and_stopped() -> LoadedBase:
        model, tokenizer = load()
        model.base_model.register_forward_hook(stop_at(3))
        return model, tokenizer

    context = replace(context_of(home), progress=lines.append, checkpoint_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train_or_load_reward((spec, base, rows), context, loaded_and_stopped)
    assert list((home / "checkpoints").glob("*/step-*"))
    resumed = train_or_load_reward((spec, base, rows), context, load)
    assert any("resuming from checkpoint" in line for line in lines)
    assert resumed.fingerprint == whole.fingerprint
    assert folder_hash(resumed.folder) == folder_hash(whole.folder)


def stop_at(call: int) -> Callable[..., None]:
    """Return a forward hook that interrupts this process at its n-th call."""
    calls = 0

    def hook(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGINT)

    return hook


def test_the_head_computes_in_float32_under_autocast(load: Load) -> None:
    import torch

    model, tokenizer = load()
    network: Any = classifier_of(model.bfloat16(), seed=1)
    ids = torch.tensor([tokenizer.encode("What is 2 plus 3?")])
    network.config.pad_token_id = tokenizer.pad_token_id
    with torch.autocast("cpu", torch.bfloat16):
        assert network(input_ids=ids, use_cache=False).logits.dtype == torch.float32
    same, other = (classifier_of(load()[0], seed=seed) for seed in (1, 2))
    head = network.state_dict()["score.weight"]
    assert torch.equal(head, same.state_dict()["score.weight"])
    assert not torch.equal(head, other.state_dict()["score.weight"])


def test_pairs_without_steps_are_refused(base: ModelRecord, load: Load, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no rows"):
        train_or_load_reward((SPEC, base, planted(0)), context_of(tmp_path), load)
