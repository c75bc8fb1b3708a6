import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from synth_assets.storage.atomic import STALE_TEMPORARY_S
from synth_assets.storage.manifests import MANIFEST, read_manifest
from synth_assets.training.adapter_store import Recipe, load_or_train
from synth_assets.training.engine import Outcome, Trained
from synth_assets.training.errors import TrainingError
from synth_assets.training.specs import DpoSpec, LoraSpec

RECIPE = Recipe("lora_adapter", "lora", LoraSpec(), "base", "r1", {"rows": "d1"}, {"dtype": "float32"}, 1)
OUTCOME = Outcome([{"step": 1.0, "loss": 2.0}], 2.0, 1, 10, 5.0, 2.0, 3, 30, 100, "derived")


@dataclass
class Trainer:
    """Fake training that counts its runs and saves one file."""

    runs: int = 0
    file: str = "adapter_model.safetensors"
    error: str = ""
    drafts: list[Path] = field(default_factory=list)

    def __call__(self) -> Trained:
        self.runs += 1
        if self.error:
            raise TrainingError(self.error)
        return Trained(OUTCOME, self.save)

    def save(self, folder: Path) -> None:
        self.drafts.append(folder)
        (folder / self.file).write_bytes(b"weights")


def test_an_adapter_is_trained_once(tmp_path: Path) -> None:
    trainer = Trainer()
    first = load_or_train(tmp_path, RECIPE, trainer)
    second = load_or_train(tmp_path, RECIPE, trainer)
    assert trainer.runs == 1
    assert second == replace(first, reused=True)
    assert second.outcome == OUTCOME
    facts = read_manifest(first.folder)
    assert facts["recipe"]["spec"]["rank"] == 8
    assert facts["outcome"]["curve"] == OUTCOME.curve
    assert [p.name for p in tmp_path.iterdir()] == [RECIPE.fingerprint()]


def test_force_trains_again(tmp_path: Path) -> None:
    trainer = Trainer()
    load_or_train(tmp_path, RECIPE, trainer)
    again = load_or_train(tmp_path, RECIPE, trainer, force=True)
    assert trainer.runs == 2
    assert not again.reused


@pytest.mark.parametrize("file", ["adapter_model.safetensors", MANIFEST])
def test_a_damaged_adapter_is_set_aside_and_trained_again(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer()
    folder = load_or_train(tmp_path, RECIPE, trainer).folder
    data = bytearray((folder / file).read_bytes())
    data[0] ^= 1
    (folder / file).write_bytes(data)
    with caplog.at_level(logging.WARNING):
        again = load_or_train(tmp_path, RECIPE, trainer)
    assert trainer.runs == 2
    assert not again.reused
    assert "damaged" in caplog.text
    assert read_manifest(folder)
    assert len(list(tmp_path.glob(".*.old.tmp"))) == 1


def test_first_of_two_processes_stores_the_adapter(tmp_path: Path) -> None:
    faster = Trainer()

    def slower() -> Trained:
        load_or_train(tmp_path, RECIPE, faster)
        return Trained(OUTCOME, Trainer(file="other.safetensors").save)

    assert load_or_train(tmp_path, RECIPE, slower).reused
    assert (tmp_path / RECIPE.fingerprint() / faster.file).is_file()
    assert len(list(tmp_path.iterdir())) == 1


# fault 17
def test_a_failed_training_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        load_or_train(tmp_path, RECIPE, Trainer(error="diverged"))
    assert list(tmp_path.iterdir()) == []


# fault 28
def test_only_safetensors_are_published(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="only safetensors"):
        load_or_train(tmp_path, RECIPE, Trainer(file="adapter_model.bin"))
    assert list(tmp_path.iterdir()) == []


# fault 4
def test_stale_drafts_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.1.1.tmp", tmp_path / ".b.1.1.tmp"
    for folder in (old, new):
        folder.mkdir()
        (folder / "part").write_text("half")
    then = old.stat().st_mtime - STALE_TEMPORARY_S - 1
    os.utime(old, (then, then))
    load_or_train(tmp_path, RECIPE, Trainer())
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(
    "other",
    [
        replace(RECIPE, spec=LoraSpec(seed=43)),
        replace(RECIPE, spec=DpoSpec()),
        replace(RECIPE, base_revision="r2"),
        replace(RECIPE, inputs={"rows": "d2"}),
        replace(RECIPE, tier={"dtype": "bfloat16"}),
        replace(RECIPE, version=2),
        replace(RECIPE, spec=LoraSpec(max_steps=5)),
    ],
)
def test_changed_input_changes_the_fingerprint(other: Recipe) -> None:
    assert RECIPE.fingerprint() == replace(RECIPE).fingerprint()
    assert other.fingerprint() != RECIPE.fingerprint()


def test_a_setting_that_is_off_changes_no_fingerprint() -> None:
    @dataclass(frozen=True, kw_only=True)
    class LaterSpec(LoraSpec):
        """LoraSpec of a later version, with one more setting."""

        noise: float | None = None

    assert replace(RECIPE, spec=LaterSpec()).fingerprint() == RECIPE.fingerprint()
    assert replace(RECIPE, spec=LaterSpec(noise=0.1)).fingerprint() != RECIPE.fingerprint()
