"""Checkpoints of a training: whole or not there at all, of this very training or refused, without pickles."""

import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_assets.storage.atomic import STALE_TEMPORARY_S, sync_folder_tree
from synth_assets.storage.blocks import Progress
from synth_assets.storage.manifests import ManifestError, read_manifest, write_manifest

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

KEPT = 2  # the newest, and the one before it in case the newest turns out damaged
ABANDONED_AFTER_S = 14 * 86_400.0
STATE, TRAINER_STATE = "state.json", "trainer_state.json"  # the second is transformers' own name

Tensors = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: holds a folder for each; nothing else writes there.
        key: the fingerprint of what determines the training.
        every_s: seconds between two.
    """

    folder: Path
    key: str
    every_s: float

    def write(self, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any], trainer_state: str) -> Path:
        """Publish what a training is after `step` steps, and drop all but the newest KEPT.

        Args:
            step: names the checkpoint.
            tensors: name of a file -> tensors.
            state: everything else, as JSON.
            trainer_state: the text of transformers' TrainerState.
        """
        from safetensors.torch import save_file

        final = self.folder / f"step-{step:08d}"
        draft = self.folder / f".{final.name}.{os.getpid()}.{time.monotonic_ns()}.tmp"
        try:
            draft.mkdir(parents=True)
            for name, content in tensors.items():
                save_file(
                    {key: t.detach().cpu().contiguous() for key, t in content.items()}, draft / f"{name}.safetensors"
                )
            (draft / STATE).write_text(json.dumps(state), "utf-8")
            (draft / TRAINER_STATE).write_text(trainer_state, "utf-8")
            write_manifest(draft, {"key": self.key, "step": step})
            sync_folder_tree(draft)
            rmtree(final, ignore_errors=True)  # a damaged one of the same step
            draft.replace(final)
        finally:
            rmtree(draft, ignore_errors=True)
        for older in self._newest_first()[KEPT:]:
            rmtree(older, ignore_errors=True)
        return final

    def newest(self, progress: Progress) -> Path | None:
        """The newest complete checkpoint of this training, or None; `progress` hears why one is passed over."""
        self._sweep()
        for folder in self._newest_first():
            try:
                facts = read_manifest(folder)
            except (ManifestError, OSError) as error:
                progress(f"checkpoint {folder.name} is damaged and passed over for the one before it: {error}")
                continue
            if facts.get("key") == self.key:
                return folder
            progress(
                f"checkpoint {folder.name} is refused: it is of the training {facts.get('key')} and not of {self.key} "
                "(another configuration, base model, tokenizer, data or version of the code)"
            )
        return None

    def clear(self) -> None:
        """Remove them all: the adapter exists."""
        rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _sweep(self) -> None:
        """Remove drafts of killed writers, and the checkpoints of trainings that nobody resumed for long."""
        now = time.time()
        for draft in self.folder.glob(".*.tmp"):
            if draft.stat().st_mtime <= now - STALE_TEMPORARY_S:
                rmtree(draft, ignore_errors=True)
        for other in self.folder.parent.glob("*"):
            if other.is_dir() and other.stat().st_mtime <= now - ABANDONED_AFTER_S:
                rmtree(other, ignore_errors=True)


def read_tensors(checkpoint: Path, name: str) -> "dict[str, Tensor]":
    """The tensors of one file of a checkpoint, on the CPU; none where it has no such file."""
    from safetensors.torch import load_file

    path = checkpoint / f"{name}.safetensors"
    return load_file(path) if path.exists() else {}


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `write` was given as `state`."""
    return json.loads((checkpoint / STATE).read_text("utf-8"))


def optimizer_parts(optimizer: "Optimizer") -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """An optimiser's state as (tensors, JSON): the moments by parameter, the settings of its groups."""
    import torch

    state = optimizer.state_dict()
    tensors, plain = {}, {}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, torch.Tensor) else plain)[f"{number}.{name}"] = value
    return tensors, {"groups": state["param_groups"], "plain": plain}


def optimizer_state(tensors: Tensors, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict that `optimizer_parts` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["plain"]}.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    return {"state": state, "param_groups": plain["groups"]}


def random_parts() -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The state of every global random generator as (tensors, JSON)."""
    import torch

    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys, np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors, {"python": [version, list(words), gauss], "numpy": [position, has_gauss, cached]}


def restore_random(tensors: Tensors, plain: Mapping[str, Any]) -> None:
    """Set every global random generator to what `random_parts` took."""
    import torch

    version, words, gauss = plain["python"]
    random.setstate((version, tuple(words), gauss))
    position, has_gauss, cached = plain["numpy"]
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
