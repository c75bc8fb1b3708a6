import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from synth_assets.storage.manifests import folder_hash
from synth_assets.training.dpo import CONTROL_SFT_WEIGHT, control_spec, preference_losses, train_dpo
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.specs import DpoSpec, spec_settings

SPEC = DpoSpec(beta=0.2, learning_rate=1e-3, batch_size=8)


@pytest.mark.parametrize(
    ("spec", "losses"),
    [
        (DpoSpec(), (["sigmoid"], [1.0])),
        (DpoSpec(sft_weight=0.3), (["sigmoid", "sft"], [1.0, 0.3])),
        (DpoSpec(label_smoothing=0.1, dpo_weight=2.0), (["robust"], [2.0])),
        (DpoSpec(loss="ipo"), (["ipo"], [1.0])),
        (DpoSpec(dpo_weight=0.0, sft_weight=0.3), (["sft"], [0.3])),
    ],
)
def test_losses(spec: DpoSpec, losses: tuple[list[str], list[float]]) -> None:
    assert preference_losses(spec) == losses


def test_the_control_differs_in_the_weights_of_the_terms_alone() -> None:
    assert control_spec(replace(SPEC, sft_weight=0.3)) == replace(SPEC, dpo_weight=0.0, sft_weight=0.3)
    assert control_spec(SPEC) == replace(SPEC, dpo_weight=0.0, sft_weight=CONTROL_SFT_WEIGHT)


def test_training_starts_at_its_reference_and_learns_the_preference(
    load: Callable[[], LoadedBase],
    lora_folder: Path,
    pairs: pl.DataFrame,
    reference: pl.DataFrame,
    setup: TrainingSetup,
) -> None:
    curve = train_dpo(load(), lora_folder, (pairs, reference), SPEC, setup).outcome.curve
    assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert curve[0]["reward_margin"] == pytest.approx(0.0, abs=1e-3)
    last = curve[-1]
    assert last["eval_reward_margin"] > 0.1
    assert last["eval_reward_accuracy"] == 1.0


def test_the_control_is_another_adapter(
    load: Callable[[], LoadedBase],
    lora_folder: Path,
    pairs: pl.DataFrame,
    reference: pl.DataFrame,
    setup: TrainingSetup,
    tmp_path: Path,
) -> None:
    spec = replace(SPEC, sft_weight=0.3)
    dpo, control = tmp_path / "dpo", tmp_path / "control"
    trained = train_dpo(load(), lora_folder, (pairs, reference), spec, setup)
    trained.save(dpo)
    trained_control = train_dpo(load(), lora_folder, (pairs, reference), control_spec(spec), setup)
    trained_control.save(control)
    assert sorted(p.name for p in dpo.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert len({folder_hash(folder) for folder in (lora_folder, dpo, control)}) == 3
    margins = [t.outcome.curve[-1]["eval_reward_margin"] for t in (trained, trained_control)]
    assert margins[0] > margins[1]


def test_validation_pairs_need_a_reference_too(
    load: Callable[[], LoadedBase],
    lora_folder: Path,
    pairs: pl.DataFrame,
    reference: pl.DataFrame,
    setup: TrainingSetup,
) -> None:
    with pytest.raises(TrainingError, match="4 pairs have no reference"):
        train_dpo(load(), lora_folder, (pairs, reference.filter(pl.col("pair_id").is_in(_train(pairs)))), SPEC, setup)


def _train(pairs: pl.DataFrame) -> list[str]:
    return pairs.filter(pl.col("split") == "train")["pair_id"].to_list()


def test_simpo_needs_no_reference_and_separates_the_responses(
    load: Callable[[], LoadedBase],
    lora_folder: Path,
    pairs: pl.DataFrame,
    reference: pl.DataFrame,
    setup: TrainingSetup,
    tmp_path: Path,
) -> None:
    spec = replace(SPEC, loss="simpo", beta=2.0, target_margin=1.0)
    trained = train_dpo(load(), lora_folder, (pairs, reference), spec, setup)
    curve = trained.outcome.curve
    assert curve[-1]["eval_reward_margin"] > curve[0]["reward_margin"]
    assert curve[-1]["eval_loss"] < curve[0]["loss"]
    trained.save(tmp_path / "one")
    other = reference.with_columns(pl.col("chosen_logprob") - 5.0)
    train_dpo(load(), lora_folder, (pairs, other), spec, setup).save(tmp_path / "other")
    assert folder_hash(tmp_path / "one") == folder_hash(tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_margin": 0.5}, "target_margin requires loss simpo, got sigmoid"),
        ({"loss": "simpo", "target_margin": -0.5}, "target_margin must be at least 0, got -0.5"),
        ({"loss": "simpo", "label_smoothing": 0.1}, "label_smoothing requires loss sigmoid, got simpo"),
    ],
)
def test_settings_of_simpo_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DpoSpec(**settings)


def test_a_setting_that_is_off_changes_no_fingerprint() -> None:
    assert "target_margin" not in spec_settings(SPEC)
