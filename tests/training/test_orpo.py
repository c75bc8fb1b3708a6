from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.storage.manifests import folder_hash
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.orpo import control_spec, train_orpo
from synth_assets.training.specs import OrpoSpec

pytestmark = pytest.mark.integration

SPEC = OrpoSpec(rank=4, alpha=8, odds_weight=0.5, learning_rate=5e-3, epochs=2.0, batch_size=8, dropout=0.0)


def test_the_control_differs_in_the_odds_ratio_loss_alone() -> None:
    assert control_spec(SPEC) == replace(SPEC, odds_weight=0.0)


def test_training_from_the_base_learns_the_preference_and_is_deterministic(
    load: Callable[[], LoadedBase], pairs: pl.DataFrame, setup: TrainingSetup, tmp_path: Path
) -> None:
    trained, control = (train_orpo(load(), pairs, spec, setup) for spec in (SPEC, control_spec(SPEC)))
    curve, control_curve = trained.outcome.curve, control.outcome.curve
    assert curve[-1]["eval_loss"] < curve[0]["loss"]
    assert curve[-1]["eval_reward_margin"] > max(0.0, control_curve[-1]["eval_reward_margin"])
    assert trained.outcome.tokens > 0
    again = train_orpo(load(), pairs, SPEC, setup)
    folders = [tmp_path / name for name in ("trained", "again", "control")]
    for result, folder in zip((trained, again, control), folders, strict=True):
        result.save(folder)
    hashes = [folder_hash(folder) for folder in folders]
    assert hashes[0] == hashes[1] != hashes[2]
    assert sorted(path.name for path in folders[0].iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_pairs_that_exceed_the_context_are_refused(
    load: Callable[[], LoadedBase], pairs: pl.DataFrame, setup: TrainingSetup
) -> None:
    with pytest.raises(TrainingError, match="exceed the context of 8 tokens"):
        train_orpo(load(), pairs, SPEC, replace(setup, context_tokens=8))
