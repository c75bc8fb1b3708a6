"""Training checkpoints: written atomically, tied to one training by its fingerprint, without pickles."""

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

MAX_CHECKPOINTS = 2  # the newest, and the previous one in case the newest is damaged
MAX_UNUSED_S = 14 * 86_400.0
STATE, TRAINER_STATE = "state.json", "trainer_state.json"  # Transformers sets the second name

Tensors = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of one training.

    Args:
        folder: contains one folder per checkpoint and nothing else.
        key: fingerprint of the training.
        every_s: seconds between checkpoints.
    """

    folder: Path
    key: str
    every_s: float

    def write(self, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any], trainer_state: str) -> Path:
        """Write a checkpoint after `step` steps, and remove all but the newest MAX_CHECKPOINTS.

        Args:
            step: completed optimiser steps; names the checkpoint.
            tensors: file name -> tensors.
            state: everything else, as JSON values.
            trainer_state: JSON text of Transformers' TrainerState.
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
            rmtree(final, ignore_errors=True)  # a damaged checkpoint of the same step
            draft.replace(final)
        finally:
            rmtree(draft, ignore_errors=True)
        for old in self._newest_first()[MAX_CHECKPOINTS:]:
            rmtree(old, ignore_errors=True)
        return final

    def newest(self, progress: Progress) -> Path | None:
        """Return the newest valid checkpoint of this training, or None; report skipped ones to `progress`."""
        self._remove_stale()
        for folder in self._newest_first():
            try:
                facts = read_manifest(folder)
            except (ManifestError, OSError) as error:
                progress(f"skipped checkpoint {folder.name}: damaged, trying the previous one: {error}")
                continue
            if facts.get("key") == self.key:
                return folder
            progress(
                f"skipped checkpoint {folder.name}: expected training {self.key}, got {facts.get('key')} (another "
                "configuration, base model, tokenizer, data or code version)"
            )
        return None

    def clear(self) -> None:
        """Remove all checkpoints."""
        rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _remove_stale(self) -> None:
        """Remove stale drafts of killed processes, and checkpoints unused for MAX_UNUSED_S."""
        now = time.time()
        for draft in self.folder.glob(".*.tmp"):
            if draft.stat().st_mtime <= now - STALE_TEMPORARY_S:
                rmtree(draft, ignore_errors=True)
        for other in self.folder.parent.glob("*"):
            if other.is_dir() and other.stat().st_mtime <= now - MAX_UNUSED_S:
                rmtree(other, ignore_errors=True)


def read_tensors(checkpoint: Path, name: str) -> "dict[str, Tensor]":
    """Read the tensors of one file of a checkpoint onto the CPU; empty if there is no such file."""
    from safetensors.torch import load_file

    path = checkpoint / f"{name}.safetensors"
    return load_file(path) if path.exists() else {}


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read the `state` of a checkpoint."""
    return json.loads((checkpoint / STATE).read_text("utf-8"))


def optimizer_parts(optimizer: "Optimizer") -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Split an optimiser's state into tensors (moments by parameter) and JSON values (parameter groups)."""
    import torch

    state = optimizer.state_dict()
    tensors, plain = {}, {}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, torch.Tensor) else plain)[f"{number}.{name}"] = value
    return tensors, {"groups": state["param_groups"], "plain": plain}


def optimizer_state(tensors: Tensors, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Rebuild the optimiser state dict from the output of `optimizer_parts`."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["plain"]}.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    return {"state": state, "param_groups": plain["groups"]}


def random_parts() -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Return the states of all global random generators as (tensors, JSON values)."""
    import torch

    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys, np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors, {"python": [version, list(words), gauss], "numpy": [position, has_gauss, cached]}


def restore_random(tensors: Tensors, plain: Mapping[str, Any]) -> None:
    """Restore all global random generators from the output of `random_parts`."""
    import torch

    version, words, gauss = plain["python"]
    random.setstate((version, tuple(words), gauss))
    position, has_gauss, cached = plain["numpy"]
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
