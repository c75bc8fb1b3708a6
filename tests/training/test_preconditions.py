from collections.abc import Callable
from dataclasses import replace

import pytest

from resources.hardware import TIERS
from synth_assets.training.engine import LoadedBase
from synth_assets.training.errors import TrainingError
from synth_assets.training.preconditions import (
    check_answers,
    check_precision,
    check_steps,
    check_targets,
    check_trained,
    optimizer_steps,
    trainable_weights,
)
from synth_assets.training.specs import LoraSpec

CPU = TIERS["cpu"]


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs", "steps"),
    [
        (32, 8, 1, 1.0, 4),
        (33, 8, 1, 1.0, 5),  # a short batch is a step
        (33, 8, 2, 1.0, 3),  # and so is a short accumulation
        (33, 8, 2, 2.0, 6),
        (32, 8, 1, 0.6, 3),  # 2.4 steps
        (1, 8, 4, 3.0, 3),
    ],
)
def test_steps(rows: int, batch: int, accumulation: int, epochs: float, steps: int) -> None:
    spec = LoraSpec(batch_size=batch, accumulation=accumulation, epochs=epochs)
    assert optimizer_steps(rows, spec, CPU) == steps


def test_steps_in_all_replace_the_epochs() -> None:
    spec = LoraSpec(batch_size=8, epochs=1.0, max_steps=11, warmup_ratio=0.9)
    assert optimizer_steps(32, spec, CPU) == 11
    check_steps(32, spec, CPU)  # 10 of 11 steps warm up
    with pytest.raises(TrainingError, match="warm-up must be shorter than the training of 10 steps"):
        check_steps(32, replace(spec, max_steps=10, batch_tokens=64, warmup_ratio=0.95), CPU)


def test_batches_are_the_tiers_unless_the_spec_names_them() -> None:
    tier = replace(CPU, batch_size=4, accumulation=2)
    assert optimizer_steps(16, LoraSpec(epochs=1.0), tier) == 2
    assert optimizer_steps(16, LoraSpec(epochs=1.0, accumulation=1), tier) == 4


# fault 19
def test_warmup_must_end_before_the_training() -> None:
    check_steps(16, LoraSpec(batch_size=8, epochs=1.0, warmup_ratio=0.5), CPU)  # 1 of 2 steps
    with pytest.raises(TrainingError, match="warm-up must be shorter than the training of 2 steps"):
        check_steps(16, LoraSpec(batch_size=8, epochs=1.0, warmup_ratio=0.51), CPU)
    with pytest.raises(TrainingError, match="phases must add up to 2 steps, got 1, 1, 1"):
        check_steps(16, LoraSpec(batch_size=8, epochs=1.0, schedule="three_phase", phases=(1, 1, 1)), CPU)
    with pytest.raises(TrainingError, match="no rows"):
        check_steps(0, LoraSpec(), CPU)


# fault 19
def test_a_row_without_a_token_to_learn_is_refused() -> None:
    check_answers([[1], [2, 3]])
    with pytest.raises(TrainingError, match="2 rows have an empty label mask"):
        check_answers([[1], [], []])


# fault 19
def test_a_precision_that_the_device_lacks_is_refused() -> None:
    check_precision(CPU)
    with pytest.raises(TrainingError, match="float16"):
        check_precision(replace(CPU, dtype="float16"))


# fault 19
def test_target_modules_must_match(load: Callable[[], LoadedBase]) -> None:
    model, _ = load()
    config = model.config
    width, layers = config.hidden_size, config.num_hidden_layers
    # q maps width to width in each layer: rank x (width + width)
    assert check_targets(model, LoraSpec(rank=4, target_modules=["q_proj"])) == 4 * 2 * width * layers
    with pytest.raises(TrainingError, match=r"c_attn match no layer; the model has .*q_proj"):
        check_targets(model, LoraSpec(target_modules=["q_proj", "c_attn"]))


# fault 19
def test_nothing_to_train_is_refused(load: Callable[[], LoadedBase]) -> None:
    model, _ = load()
    model.requires_grad_(requires_grad=False)
    with pytest.raises(TrainingError, match="no trainable parameter"):
        trainable_weights(model)


def test_weights_must_have_changed_and_be_finite() -> None:
    import torch

    layer = torch.nn.Linear(2, 1, bias=False)
    before = trainable_weights(layer)
    with pytest.raises(TrainingError, match="changed no weight"):
        check_trained(layer, before)
    with torch.no_grad():
        layer.weight[0, 0] += 1
    check_trained(layer, before)
    with torch.no_grad():
        layer.weight[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="not finite"):
        check_trained(layer, before)
