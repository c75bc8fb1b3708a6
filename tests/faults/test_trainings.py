"""Faults 13 to 16: killed trainings, damaged or foreign checkpoints, and out-of-memory errors."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.inference import Hardware, Inference
from synth_assets.storage.manifests import write_manifest
from synth_assets.training.adapter_store import StoredAdapter
from synth_assets.training.engine import Outcome
from synth_assets.training.train_or_load import train_or_load_adapter
from tests.faults import training

pytestmark = pytest.mark.integration

PROGRAM = Path(training.__file__)
LIMIT_S = 300
ALWAYS, NEVER = 0.0, 1e9


class Trainer:
    """Trains in this process, with the libraries loaded, and keeps the progress lines."""

    def __init__(self) -> None:
        self.inference = Inference(hardware=Hardware(tier="cpu"))
        self.base = self.inference.resolve("base")
        self.lines: list[str] = []

    def finish(self, home: Path, every_s: float = NEVER) -> StoredAdapter:
        self.lines = []
        context = training.training_context(home, every_s, self.lines.append)
        record, stored = train_or_load_adapter(
            training.training_request(self.base), context, lambda: self.inference.load_base(self.base)
        )
        assert stored is not None, record.failure
        return stored


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture(scope="module")
def undisturbed(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> StoredAdapter:
    return trainer.finish(tmp_path_factory.mktemp("undisturbed"))


def weights(stored: StoredAdapter) -> bytes:
    return (stored.folder / "adapter_model.safetensors").read_bytes()


def losses(outcome: Outcome) -> list[tuple[float, float | None, float | None]]:
    return [(point["step"], point.get("loss"), point.get("eval_loss")) for point in outcome.curve]


def checkpoints(home: Path) -> list[Path]:
    return sorted(home.glob("checkpoints/*/step-*"))


def interrupted(home: Path, number: signal.Signals) -> int:
    """Start a training and send it a signal after two checkpoints; return its exit code."""
    process = subprocess.Popen([sys.executable, PROGRAM, home, "0.2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + LIMIT_S
    with process:
        while len(checkpoints(home)) < 2:
            assert process.poll() is None, process.communicate()[1].decode()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=LIMIT_S)
    return process.returncode


def assert_same_training(actual: StoredAdapter, expected: StoredAdapter) -> None:
    assert losses(actual.outcome) == losses(expected.outcome)
    assert weights(actual) == weights(expected)
    assert actual.outcome.tokens == expected.outcome.tokens


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home of a training that was killed with SIGKILL."""
    home = tmp_path_factory.mktemp("killed")
    assert interrupted(home, signal.SIGKILL) == -signal.SIGKILL
    return home


@pytest.fixture
def home(killed: Path, tmp_path: Path) -> Path:
    """Return a copy of that home for one test."""
    return Path(shutil.copytree(killed, tmp_path / "home"))


def test_a_killed_training_resumes(trainer: Trainer, undisturbed: StoredAdapter, home: Path) -> None:
    # fault 13
    assert not list(home.glob("adapters/[!.]*"))
    newest = checkpoints(home)[-1].name
    resumed = trainer.finish(home)
    assert any(f"resuming from checkpoint {newest}" in line for line in trainer.lines)
    assert_same_training(resumed, undisturbed)
    assert not list(home.glob("checkpoints/*"))


def test_a_signal_writes_a_checkpoint_first(
    tmp_path: Path, trainer: Trainer, undisturbed: StoredAdapter
) -> None:  # fault 13
    """SIGTERM arrives in the first forward pass, before any checkpoint is due."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        context = training.training_context(tmp_path, NEVER, trainer.lines.append)
        with pytest.raises(RuntimeError, match="checkpoint written at step 1"):
            train_or_load_adapter(training.training_request(trainer.base), context, lambda: load_with_signal(trainer))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]  # the previous handler is called at the end
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
    assert_same_training(trainer.finish(tmp_path), undisturbed)


def load_with_signal(trainer: Trainer) -> object:
    """Load the base and raise SIGTERM in its first forward pass of the training."""
    model, tokenizer = trainer.inference.load_base(trainer.base)

    def interrupt(*_: object) -> None:
        if model.training:
            handle.remove()
            signal.raise_signal(signal.SIGTERM)

    handle = model.register_forward_pre_hook(interrupt)
    return model, tokenizer


def test_a_truncated_checkpoint_is_skipped_for_the_previous_one(
    trainer: Trainer, undisturbed: StoredAdapter, home: Path
) -> None:  # fault 14
    older, newest = checkpoints(home)
    file = newest / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    resumed = trainer.finish(home)
    assert any(f"skipped checkpoint {newest.name}: damaged" in line for line in trainer.lines)
    assert any(f"resuming from checkpoint {older.name}" in line for line in trainer.lines)
    assert_same_training(resumed, undisturbed)


def test_a_foreign_checkpoint_is_refused(trainer: Trainer, undisturbed: StoredAdapter, home: Path) -> None:  # fault 15
    for checkpoint in checkpoints(home):  # complete, but of another configuration, base or tokenizer
        write_manifest(checkpoint, {"key": "0" * 16, "step": 1})
    trained = trainer.finish(home)
    assert sum("got 0000000000000000" in line for line in trainer.lines) == 2
    assert not any("goes on from" in line for line in trainer.lines)
    assert_same_training(trained, undisturbed)


def test_a_checkpoint_holds_no_pickle(killed: Path) -> None:  # fault 28
    files = {path.name for path in checkpoints(killed)[0].iterdir()}
    assert {name.rpartition(".")[2] for name in files} == {"safetensors", "json"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_out_of_memory_halves_the_batch(undisturbed: StoredAdapter, tmp_path: Path) -> None:  # fault 16
    command = [sys.executable, PROGRAM, tmp_path, str(NEVER), "90"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    output = json.loads(result.stdout.splitlines()[-1])
    assert output["failure"] == ""
    outcome = Outcome(**output["outcome"])
    assert outcome.batch_size < 16
    assert outcome.batch_size * outcome.accumulation == 16
    assert any("out of memory: batch x accumulation reduced" in event for event in outcome.events)
    assert outcome.steps == undisturbed.outcome.steps
    assert outcome.tokens == undisturbed.outcome.tokens
