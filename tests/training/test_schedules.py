import math
from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from synth_assets.training.engine import LoadedBase, TrainingSetup
from synth_assets.training.schedules import AdaptiveRate, phase_at, phases_of
from synth_assets.training.sft import train_lora
from synth_assets.training.specs import LoraSpec

pytestmark = pytest.mark.integration

THREE = LoraSpec(schedule="three_phase")  # at the reference rate of 2e-4


def rates(spec: LoraSpec, steps: int) -> list[float]:
    plan = AdaptiveRate(spec, steps)
    return [spec.learning_rate * plan.factor(done) for done in range(steps)]


def test_three_phases_of_ten_steps_by_hand() -> None:
    explore, exploit, refine = phases_of(THREE, 10)
    assert (explore.name, explore.strategy, explore.first_step, explore.last_step) == ("exploration", "linear", 1, 2)
    assert (exploit.name, exploit.strategy, exploit.first_step, exploit.last_step) == ("exploitation", "cosine", 3, 8)
    assert (refine.name, refine.strategy, refine.first_step, refine.last_step) == ("refinement", "exponential", 9, 10)
    actual = rates(THREE, 10)
    assert actual[:2] == pytest.approx([5e-4, 3.5e-4])  # linear from 5e-4 to 2e-4 over two steps
    # half a cosine from 2e-4 to 5e-6 over six steps: at a third 3/4 of the way is left, at a half 1/2
    assert actual[2] == pytest.approx(2e-4)
    assert actual[4] == pytest.approx(5e-6 + 1.95e-4 * 0.75)
    assert actual[5] == pytest.approx(5e-6 + 1.95e-4 * 0.5)
    assert actual[8] == pytest.approx(5e-6)
    assert actual[9] == pytest.approx(5e-6 / math.sqrt(5))  # half way on a log scale to 1e-6


def test_phases_may_be_numbers_of_steps() -> None:
    phases = phases_of(replace(THREE, phases=(10, 20, 70)), 100)
    assert [(p.first_step, p.last_step) for p in phases] == [(1, 10), (11, 30), (31, 100)]
    with pytest.raises(ValueError, match="phases must add up to 99 steps, got 10, 20, 70"):
        phases_of(replace(THREE, phases=(10, 20, 70)), 99)


def test_a_phase_without_a_step_is_left_out() -> None:
    (only,) = phases_of(THREE, 1)  # .2 of a step rounds to none, .8 to one
    assert (only.number, only.name) == (1, "exploitation")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.0, 0.5, 1.0, 0.5]),  # two steps of warm-up, then from 1 to 0 over two
        ("cosine", [0.0, 0.5, 1.0, 0.5]),
        ("constant", [0.0, 0.5, 1.0, 1.0]),
    ],
)
def test_the_other_schedules_warm_up(schedule: str, expected: list[float]) -> None:
    spec = LoraSpec(learning_rate=1.0, schedule=schedule, warmup_ratio=0.5)  # pyright: ignore[reportArgumentType]
    assert rates(spec, 4) == pytest.approx(expected)
    assert [phase.name for phase in phases_of(spec, 4)] == ["warm-up", "training"]
    assert phase_at(phases_of(spec, 4), 3).number == 2


def test_rate_is_reduced_when_the_loss_stalls() -> None:
    plan = AdaptiveRate(replace(THREE, reduce_patience=2), 100)
    before = plan.factor(0)
    assert [plan.observe(loss) for loss in (2.0, 1.9, 1.8)] == [False] * 3  # it falls
    assert [plan.observe(2.5), plan.observe(2.5)] == [False, True]  # two steps without a new lowest
    assert plan.scale == pytest.approx(1 / 1.5)
    assert plan.factor(0) == pytest.approx(before / 1.5)
    assert [plan.observe(1.0) for _ in range(30)] == [False] * 30  # falling again, and the reduction lasts
    assert plan.scale == pytest.approx(1 / 1.5)


def test_rate_reduction_stops_at_the_floor() -> None:
    plan = AdaptiveRate(replace(THREE, reduce_patience=1), 100)
    plan.observe(1.0)
    reductions = sum(plan.observe(2.0) for _ in range(20))
    # 1.5 ** 5 is 7.6 and 1.5 ** 6 is 11.4, so the sixth reduction meets the floor
    assert (reductions, plan.scale) == (6, 0.1)


def test_rate_reduction_is_off_by_default() -> None:
    plan = AdaptiveRate(LoraSpec(), 100)
    assert not any(plan.observe(loss) for loss in [1.0, *[2.0] * 50])
    assert AdaptiveRate(THREE, 100).spec.effective_reduce_patience == 20


def test_state_survives_a_checkpoint() -> None:
    plan = AdaptiveRate(replace(THREE, reduce_patience=2), 100)
    for loss in (1.0, 2.0, 2.0, 2.0):
        plan.observe(loss)
    again = AdaptiveRate(plan.spec, 100)
    again.restore(plan.state())
    assert [again.observe(2.0), again.scale] == [plan.observe(2.0), plan.scale]


def test_a_training_takes_the_rates_of_its_phases(
    load: Callable[[], LoadedBase], rows: pl.DataFrame, setup: TrainingSetup
) -> None:
    lines: list[str] = []
    spec = LoraSpec(
        rank=4, alpha=8, learning_rate=1e-6, epochs=3.0, batch_size=8, schedule="three_phase", reduce_patience=1
    )
    outcome = train_lora(load(), rows, spec, replace(setup, progress=lines.append)).outcome
    plan = AdaptiveRate(spec, 12)
    points = [point for point in outcome.curve if "loss" in point]
    for done, point in enumerate(points):
        assert point["rate_scale"] == pytest.approx(plan.scale)
        assert point["learning_rate"] == pytest.approx(spec.learning_rate * plan.factor(done))
        plan.observe(point["loss"])
    assert points[-1]["rate_scale"] < 1.0  # it was the loss that lowered it
    assert any("loss stalled" in line for line in lines)
    assert [point["phase"] for point in points] == [1.0] * 2 + [2.0] * 8 + [3.0] * 2
    assert [phase["name"] for phase in outcome.phases] == ["exploration", "exploitation", "refinement"]
