import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from synth_assets.storage.manifests import folder_hash
from synth_assets.training.data import Example
from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.errors import TrainingError
from synth_assets.training.kto import labelled_responses, mismatched_examples, train_kto
from synth_assets.training.specs import KtoSpec

pytestmark = pytest.mark.integration

SPEC = KtoSpec(beta=0.2, learning_rate=1e-3, epochs=2.0, batch_size=8)


def test_each_pair_gives_a_desirable_and_an_undesirable_row(pairs: pl.DataFrame) -> None:
    rows = labelled_responses(pairs)
    assert rows.height == 2 * pairs.height
    assert rows.filter("desirable")["response"].to_list() == pairs["chosen"].to_list()
    assert rows.filter(~pl.col("desirable"))["response"].to_list() == pairs["rejected"].to_list()
    assert rows["split"].to_list() == pairs["split"].to_list() * 2


def test_a_prompt_gets_the_next_response_to_another_prompt_that_fits() -> None:
    examples = [Example([1], [2]), Example([1], [3]), Example([4], [5] * 4), Example([6], [7])]
    assert mismatched_examples(examples, 8) == [
        Example([1], [5] * 4),
        Example([1], [5] * 4),
        Example([4], [7]),
        Example([6], [2]),
    ]
    assert mismatched_examples(examples, 4)[0] == Example([1], [7])
    with pytest.raises(TrainingError, match="none fits the context of 8 tokens"):
        mismatched_examples(examples[:2], 8)


def test_training_starts_at_its_reference_and_learns_the_labels(
    load: Callable[[], LoadedBase],
    lora_folder: Path,
    pairs: pl.DataFrame,
    reference: pl.DataFrame,
    setup: TrainingSetup,
    tmp_path: Path,
) -> None:
    trained = train_kto(load(), lora_folder, (pairs, reference), SPEC, setup)
    curve = trained.outcome.curve
    assert curve[0]["loss"] == pytest.approx(0.5, abs=1e-3)  # 1 - sigmoid(0): the policy is its reference
    assert curve[0]["kl"] == pytest.approx(0.0, abs=1e-3)
    assert curve[-1]["eval_reward_margin"] > 0.1
    assert curve[-1]["eval_loss"] < 0.5
    again = train_kto(load(), lora_folder, (pairs, reference), SPEC, setup)
    trained.save(tmp_path / "trained")
    again.save(tmp_path / "again")
    assert folder_hash(tmp_path / "trained") == folder_hash(tmp_path / "again") != folder_hash(lora_folder)


def test_a_weight_of_zero_leaves_out_the_rows_of_a_label(
    load: Callable[[], LoadedBase],
    lora_folder: Path,
    pairs: pl.DataFrame,
    reference: pl.DataFrame,
    setup: TrainingSetup,
) -> None:
    spec = replace(SPEC, undesirable_weight=0.0, epochs=1.0)
    curve = train_kto(load(), lora_folder, (pairs, reference), spec, setup).outcome.curve
    assert math.isfinite(curve[-1]["eval_loss"])
    assert curve[0]["loss"] < 0.5 - 1e-3


def test_a_pair_without_reference_and_a_batch_of_one_row_are_refused(
    load: Callable[[], LoadedBase],
    lora_folder: Path,
    pairs: pl.DataFrame,
    reference: pl.DataFrame,
    setup: TrainingSetup,
) -> None:
    with pytest.raises(TrainingError, match="28 pairs have no reference"):
        train_kto(load(), lora_folder, (pairs, reference.clear()), SPEC, setup)
    with pytest.raises(TrainingError, match="at least 2 rows in a forward pass"):
        train_kto(load(), lora_folder, (pairs, reference), replace(SPEC, batch_size=1), setup)
