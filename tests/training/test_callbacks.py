import math

import pytest

from synth_assets.training.callbacks import Curve
from synth_assets.training.errors import TrainingError


def test_points_use_curve_names() -> None:
    curve = Curve("a", lambda _: None)
    curve.add(1, 2, {"loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.5, "epoch": 0.5, "num_tokens": 7, "entropy": 3})
    curve.add(2, 2, {"eval_loss": 1.0, "eval_rewards/margins": 0.25, "epoch": 1.0})
    curve.add(2, 2, {"train_runtime": 3.0})  # the summary is no point
    assert curve.points == [
        {"step": 1.0, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.5},
        {"step": 2.0, "epoch": 1.0, "eval_loss": 1.0, "eval_reward_margin": 0.25},
    ]
    assert curve.tokens == 7


def test_final_loss_is_the_mean_of_the_last_tenth() -> None:
    curve = Curve("a", lambda _: None)
    for step in range(1, 21):
        curve.add(step, 20, {"loss": float(step)})
    assert curve.final_loss() == 19.5  # steps 19 and 20


# fault 17
@pytest.mark.parametrize("name", ["loss", "eval_loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_ends_the_training(name: str, value: float) -> None:
    with pytest.raises(TrainingError, match="at step 3"):
        Curve("a", lambda _: None).add(3, 9, {name: value})


def test_float16_may_overflow_a_few_times_in_a_row() -> None:
    curve = Curve("a", lambda _: None, max_overflows=2)
    for norm in (math.inf, math.inf, 1.0, math.inf, math.inf):
        curve.add(1, 9, {"loss": 1.0, "grad_norm": norm})
    with pytest.raises(TrainingError, match="gradient norm"):
        curve.add(2, 9, {"loss": 1.0, "grad_norm": math.inf})


def test_last_step_is_always_reported() -> None:
    lines: list[str] = []
    curve = Curve("lora_adapter", lines.append)
    curve.add(1, 2, {"loss": 1.5})
    curve.add(2, 2, {"loss": 1.25})
    (line,) = lines
    assert line.startswith("lora_adapter: step 2 of 2, loss 1.250")
    assert line.endswith("0 s left")
