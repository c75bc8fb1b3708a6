from dataclasses import replace
from types import SimpleNamespace

import pytest

from synth_assets.training.budget import UNLIMITED, Budget, budget_of
from synth_assets.training.callbacks import Curve
from synth_assets.training.errors import TrainingError
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.memory import is_out_of_memory, shrink_batch
from synth_assets.training.selection import BestWeights
from synth_assets.training.session import Session
from synth_assets.training.specs import LoraSpec

SPEC = LoraSpec(stop_patience=2, stop_threshold=0.1)


def test_best_weights_are_kept_and_patience_stops_training() -> None:
    import torch

    layer = torch.nn.Linear(1, 1, bias=False)
    best = BestWeights(SPEC)
    ended = []
    for step, loss in enumerate([2.0, 1.0, 0.95, 1.2], start=1):
        with torch.no_grad():
            layer.weight.fill_(step)
        ended.append(best.update(step, loss, layer))
    # .95 is lower than 1 but not by .1: kept, and no improvement; 1.2 is the second in a row without
    assert ended == [False, False, False, True]
    assert (best.step, best.loss, best.waited) == (3, 0.95, 2)
    again = BestWeights(SPEC)
    again.restore(best.state(), best.weights, layer)
    again.load_into(layer)
    assert layer.weight.item() == 3.0


def test_last_weights_are_kept_without_keep_best() -> None:
    import torch

    layer = torch.nn.Linear(1, 1)
    best = BestWeights(replace(SPEC, keep_best=False, stop_patience=0))
    assert not any(best.update(step, 1.0, layer) for step in range(10))  # no patience set: it never stops early
    assert best.weights == {}


def test_the_tighter_limit_is_the_budget() -> None:
    assert budget_of(2.0, 1.0, 60.0).seconds == 60.0  # a dollar buys a minute
    assert budget_of(0.5, 1.0, 60.0).seconds == 30.0
    assert budget_of(None, 1.0, 0.0) == UNLIMITED  # a machine that costs nothing


def test_budget_rejects_a_prediction_above_it() -> None:
    budget = Budget(10.0, "max_minutes 0.17")
    budget.check_prediction(None)  # nobody knows
    budget.check_prediction(10.0)
    with pytest.raises(TrainingError, match="predicted to take 11 s, more than the 10 s allowed by max_minutes"):
        budget.check_prediction(11.0)


def test_budget_stops_a_training_above_it() -> None:
    curve, budget = Curve("a", lambda _: None), Budget(60.0, "max_minutes 1")
    curve.started -= 6.0  # six seconds
    budget.check(10, 90, curve)  # 54 s in all
    budget.check(2, 90, curve)  # too early to tell
    with pytest.raises(TrainingError, match="step 9 of 100 after 6 s: all steps would take about 67 s"):
        budget.check(9, 100, curve)


@pytest.mark.parametrize(
    ("batch", "accumulation", "expected"), [(16, 1, (8, 2)), (2, 8, (1, 16)), (3, 2, (1, 6)), (9, 1, (3, 3))]
)
def test_a_smaller_batch_keeps_the_rows_of_a_step(batch: int, accumulation: int, expected: tuple[int, int]) -> None:
    spec = shrink_batch(LoraSpec(batch_size=batch, accumulation=accumulation))
    assert (spec.batch_size, spec.accumulation) == expected


# fault 16
def test_one_row_that_does_not_fit_is_an_error_with_advice() -> None:
    with pytest.raises(TrainingError, match=r"a batch of one row: .*int8"):
        shrink_batch(LoraSpec(batch_size=1, accumulation=16))


def test_out_of_memory_errors_are_detected() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


class Evaluating:
    """Fake trainer whose validation runs out of memory for batches of more than four rows."""

    def __init__(self) -> None:
        self.args = SimpleNamespace(per_device_eval_batch_size=16, per_device_train_batch_size=16)

    def evaluate(self, loss: float) -> dict[str, float]:
        import torch

        if self.args.per_device_eval_batch_size > 4:
            torch.empty(2**60, dtype=torch.uint8)
        return {"eval_loss": loss}


class ExtendedTrainer(TrainerMixin, Evaluating):
    """Combination of mixin and trainer, as in sft.py and dpo.py."""


# fault 16
def test_out_of_memory_in_validation_shrinks_only_its_batch() -> None:
    trainer = ExtendedTrainer()
    trainer.session = Session(SPEC, Curve("a", lambda _: None), None, UNLIMITED, ())
    assert trainer.evaluate(1.5) == {"eval_loss": 1.5}
    assert (trainer.args.per_device_eval_batch_size, trainer.args.per_device_train_batch_size) == (4, 16)
    assert trainer.session.events[-1].endswith("batch reduced from 8 to 4 rows")
