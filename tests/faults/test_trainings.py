"""Faults 13 to 16: trainings that are killed, whose checkpoints are damaged or foreign, and that run out of memory."""

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

PROGRAM = Path(training.__file__)
LIMIT_S = 300
ALWAYS, NEVER = 0.0, 1e9


class Known:
    """Runs in this process, whose libraries are loaded, and what they said."""

    def __init__(self) -> None:
        self.inference = Inference(hardware=Hardware(tier="cpu"))
        self.base = self.inference.resolve("base")
        self.lines: list[str] = []

    def finish(self, home: Path, every_s: float = NEVER) -> StoredAdapter:
        self.lines = []
        shop = training.workshop(home, every_s, self.lines.append)
        record, stored = train_or_load_adapter(
            training.order(self.base), shop, lambda: self.inference.load_base(self.base)
        )
        assert stored is not None, record.failure
        return stored


@pytest.fixture(scope="module")
def known() -> Known:
    return Known()


@pytest.fixture(scope="module")
def undisturbed(known: Known, tmp_path_factory: pytest.TempPathFactory) -> StoredAdapter:
    return known.finish(tmp_path_factory.mktemp("undisturbed"))


def weights(stored: StoredAdapter) -> bytes:
    return (stored.folder / "adapter_model.safetensors").read_bytes()


def losses(outcome: Outcome) -> list[tuple[float, float | None, float | None]]:
    return [(point["step"], point.get("loss"), point.get("eval_loss")) for point in outcome.curve]


def checkpoints(home: Path) -> list[Path]:
    return sorted(home.glob("checkpoints/*/step-*"))


def interrupted(home: Path, number: signal.Signals) -> int:
    """Start a training, send it a signal once it has left two checkpoints; returns how it ended."""
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


def same_training(one: StoredAdapter, other: StoredAdapter) -> None:
    assert losses(one.outcome) == losses(other.outcome)
    assert weights(one) == weights(other)
    assert one.outcome.tokens == other.outcome.tokens


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a training that SIGKILL ended."""
    home = tmp_path_factory.mktemp("killed")
    assert interrupted(home, signal.SIGKILL) == -signal.SIGKILL
    return home


@pytest.fixture
def home(killed: Path, tmp_path: Path) -> Path:
    """The same, for one test."""
    return Path(shutil.copytree(killed, tmp_path / "home"))


def test_a_killed_training_goes_on_where_it_was(known: Known, undisturbed: StoredAdapter, home: Path) -> None:
    # fault 13
    assert not list(home.glob("adapters/[!.]*"))
    newest = checkpoints(home)[-1].name
    resumed = known.finish(home)
    assert any(f"resuming from checkpoint {newest}" in line for line in known.lines)
    same_training(resumed, undisturbed)
    assert not list(home.glob("checkpoints/*"))


def test_a_signal_flushes_a_checkpoint_first(
    tmp_path: Path, known: Known, undisturbed: StoredAdapter
) -> None:  # fault 13
    """In this process: SIGTERM arrives in the first forward pass, and no checkpoint was due."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        shop = training.workshop(tmp_path, NEVER, known.lines.append)
        with pytest.raises(RuntimeError, match="checkpoint written at step 1"):
            train_or_load_adapter(training.order(known.base), shop, lambda: loaded_with_a_signal(known))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]  # what the process did before is done in the end
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
    same_training(known.finish(tmp_path), undisturbed)


def loaded_with_a_signal(known: Known) -> object:
    """The base; its first forward pass in training has the process told to end."""
    model, tokenizer = known.inference.load_base(known.base)

    def tell(*_: object) -> None:
        if model.training:
            handle.remove()
            signal.raise_signal(signal.SIGTERM)

    handle = model.register_forward_pre_hook(tell)
    return model, tokenizer


def test_a_truncated_checkpoint_gives_way_to_the_one_before(
    known: Known, undisturbed: StoredAdapter, home: Path
) -> None:  # fault 14
    older, newest = checkpoints(home)
    file = newest / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    resumed = known.finish(home)
    assert any(f"skipped checkpoint {newest.name}: damaged" in line for line in known.lines)
    assert any(f"resuming from checkpoint {older.name}" in line for line in known.lines)
    same_training(resumed, undisturbed)


def test_a_foreign_checkpoint_is_refused(known: Known, undisturbed: StoredAdapter, home: Path) -> None:  # fault 15
    for checkpoint in checkpoints(home):  # whole, but of another configuration, base or tokenizer
        write_manifest(checkpoint, {"key": "0" * 16, "step": 1})
    trained = known.finish(home)
    assert sum("got 0000000000000000" in line for line in known.lines) == 2
    assert not any("goes on from" in line for line in known.lines)
    same_training(trained, undisturbed)


def test_a_checkpoint_holds_no_pickle(killed: Path) -> None:  # fault 28
    files = {path.name for path in checkpoints(killed)[0].iterdir()}
    assert {name.rpartition(".")[2] for name in files} == {"safetensors", "json"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_memory_that_runs_out_halves_the_batch(undisturbed: StoredAdapter, tmp_path: Path) -> None:  # fault 16
    command = [sys.executable, PROGRAM, tmp_path, str(NEVER), "90"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["failure"] == ""
    outcome = Outcome(**told["outcome"])
    assert outcome.batch_size < 16
    assert outcome.batch_size * outcome.accumulation == 16
    assert any("out of memory: forward passes" in event for event in outcome.events)
    assert outcome.steps == undisturbed.outcome.steps
    assert outcome.tokens == undisturbed.outcome.tokens
