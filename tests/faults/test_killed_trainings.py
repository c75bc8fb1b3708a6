"""Fault 13: a killed training resumes bit for bit, in every epoch, for every method and order of rows."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from synth_assets.training.engine import Outcome
from synth_assets.training.loop import TrainerMixin
from synth_assets.training.session import TrainingInterruptedError
from tests.faults import killed_trainings as killed

pytestmark = pytest.mark.integration

PROGRAM = Path(killed.__file__)
LIMIT_S = 500
ALWAYS, NEVER = 0.0, 1e9
PLACES = ("forward", "second", "evaluation")

Result = tuple[bytes, Outcome]
Job = tuple[str, str, float, Sequence[tuple[int, str]]]


def finish(name: str, folder: Path, every_s: float = NEVER) -> tuple[Result, list[str]]:
    """Run a training to the end; return the bytes of its weights, its outcome and its progress lines."""
    lines: list[str] = []
    trained = killed.train(name, folder, every_s, lines.append)
    adapter = folder / "adapter"
    adapter.mkdir(parents=True)
    trained.save(adapter)
    return ((adapter / "adapter_model.safetensors").read_bytes(), trained.outcome), lines


def kill(jobs: Sequence[Job]) -> None:
    command = [sys.executable, PROGRAM, json.dumps(jobs)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    killed.write_models(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(homes: Path) -> Callable[[str], Result]:
    """Return a function that trains a case once without interruption."""
    results: dict[str, Result] = {}

    def result(name: str) -> Result:
        if name not in results:
            results[name], _ = finish(name, homes / f"undisturbed-{name}")
        return results[name]

    return result


@pytest.fixture(scope="module")
def survivors(homes: Path) -> Path:
    """Kill each case at its steps, in one separate process; return the folder."""
    kill([(name, str(homes / name), ALWAYS, case.kills) for name, case in killed.CASES.items()])
    return homes


def check_same(resumed: Result, expected: Result) -> None:
    (weights, actual), (expected_weights, outcome) = resumed, expected
    assert actual.curve == outcome.curve
    assert weights == expected_weights
    for name in ("tokens", "fill_rate", "steps", "best_step", "phases", "final_loss"):
        assert getattr(actual, name) == getattr(outcome, name), name


@pytest.mark.parametrize("name", killed.CASES)
def test_a_killed_training_equals_an_uninterrupted_one(
    survivors: Path, undisturbed: Callable[[str], Result], name: str
) -> None:
    resumed, lines = finish(name, survivors / name)
    assert any("resuming from checkpoint" in line for line in lines)
    check_same(resumed, undisturbed(name))


def test_a_signal_in_the_last_step_adds_no_step(
    homes: Path, undisturbed: Callable[[str], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, training_step = homes / "signal", TrainerMixin.training_step

    def step(trainer: Any, *arguments: Any) -> Any:  # noqa: ANN401
        if trainer.state.global_step == 9:
            signal.raise_signal(signal.SIGTERM)
        return training_step(trainer, *arguments)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        monkeypatch.setattr(TrainerMixin, "training_step", step)
        with pytest.raises(TrainingInterruptedError, match="written at step 10"):
            killed.train("max_steps", folder, NEVER)
    finally:
        monkeypatch.undo()
        signal.signal(signal.SIGTERM, before)
    expected = undisturbed("max_steps")
    assert expected[1].steps == 10
    check_same(finish("max_steps", folder)[0], expected)


@pytest.mark.parametrize(
    ("name", "kills"),
    [("accumulation", 3), pytest.param("accumulation", 12, marks=pytest.mark.slow)]
    + [pytest.param(name, 8, marks=pytest.mark.slow) for name in killed.CASES if name != "accumulation"],
)
def test_kills_at_random_steps_change_nothing(
    homes: Path, undisturbed: Callable[[str], Result], name: str, kills: int
) -> None:
    draw = random.Random(f"{name} {kills}")
    expected = undisturbed(name)
    places = [
        (step, place)
        for step in range(expected[1].steps)
        for place in PLACES
        if place == "forward" or (place == "second" and killed.CASES[name].spec.accumulation == 2)
    ]
    folder = homes / f"random-{name}-{kills}"
    kill([(name, str(folder), draw.choice([ALWAYS, 0.05]), sorted(draw.sample(places, kills)))])
    check_same(finish(name, folder)[0], expected)
