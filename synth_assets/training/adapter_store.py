"""Content-addressed adapter store. Each adapter is keyed by its training inputs and written atomically."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from typing import Any

from synth_assets.schemas.serialization import fingerprint
from synth_assets.storage.atomic import STALE_TEMPORARY_S, sync_folder_tree
from synth_assets.storage.manifests import MANIFEST, ManifestError, file_sha256, read_manifest, write_manifest
from synth_assets.training.engine import Outcome, Trained
from synth_assets.training.errors import TrainingError
from synth_assets.training.specs import AdapterSpec, spec_settings

LIBRARIES = ("torch", "transformers", "peft", "trl")


@dataclass(frozen=True)
class Recipe:
    """Training inputs that determine an adapter.

    Args:
        name: name of the asset.
        method: as in `AdapterRecord`.
        spec: settings of the method.
        base: public name of the base model.
        base_revision: its commit, or the hash of its files.
        inputs: name -> content hash of each training table, and of the adapter that is continued.
        tier: hardware settings that change the numbers: device, dtype, quantisation, attention, grouping.
        version: version of the method's code (methods.py).
    """

    name: str
    method: str
    spec: AdapterSpec
    base: str
    base_revision: str
    inputs: Mapping[str, str]
    tier: Mapping[str, Any]
    version: int

    def fingerprint(self) -> str:
        """Return a 16-digit hex hash of the recipe and the library versions.

        Omits settings that are None, so that a new setting that is off by default does not retrain any adapter.
        """
        return fingerprint({**asdict(self), "spec": spec_settings(self.spec)}, library_versions())


@dataclass(frozen=True)
class StoredAdapter:
    """A complete adapter on disk; `reused` is True if it was loaded instead of trained."""

    folder: Path
    fingerprint: str
    outcome: Outcome
    manifest_sha256: str
    reused: bool


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that affect the weights."""
    return {name: version(name) for name in LIBRARIES}


def load_or_train(store: Path, recipe: Recipe, train: Callable[[], Trained], *, force: bool = False) -> StoredAdapter:
    """Load the adapter of `recipe` from `store`, or train and store it.

    A damaged adapter is moved aside with a warning and trained again. With `force`, so is an intact one.

    Raises:
        TrainingError: `train` failed; nothing is stored.
    """
    key = recipe.fingerprint()
    folder = store / key
    _remove_stale(store)
    if not force and (stored := _load_intact(folder, key)):
        return stored
    trained = train()
    draft = store / f".{key}.{os.getpid()}.{time.monotonic_ns()}.tmp"
    try:
        draft.mkdir(parents=True)
        trained.save(draft)
        if pickles := [p.name for p in draft.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]:
            raise TrainingError(f"the adapter contains {pickles[0]}: only safetensors can be stored")
        write_manifest(draft, {"recipe": asdict(recipe), "fingerprint": key, "outcome": asdict(trained.outcome)})
        sync_folder_tree(draft)
        if not force and (stored := _load_intact(folder, key)):
            return stored  # another process finished first
        _move_aside(folder)
        draft.replace(folder)
    finally:
        rmtree(draft, ignore_errors=True)
    return StoredAdapter(folder, key, trained.outcome, file_sha256(folder / MANIFEST), reused=False)


def last_tokens_per_s(store: Path, recipe: Recipe) -> float | None:
    """Return the tokens per second of the newest stored adapter with the same method, base and hardware, or None."""
    fields = ("method", "base", "tier")
    expected = {name: asdict(recipe)[name] for name in fields}
    for manifest in sorted(store.glob(f"[!.]*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            facts = json.loads(manifest.read_text("utf-8"))["facts"]
            if {name: facts["recipe"][name] for name in fields} == expected:
                return float(facts["outcome"]["tokens_per_s"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged; reported when this adapter itself is requested
    return None


def _load_intact(folder: Path, key: str) -> StoredAdapter | None:
    if not folder.exists():
        return None
    try:
        facts = read_manifest(folder)
        outcome = Outcome(**facts["outcome"])
    except (ManifestError, ValueError, TypeError, KeyError) as error:
        logging.getLogger(__name__).warning("Adapter %s is damaged and will be trained again: %s", key, error)
        return None
    return StoredAdapter(folder, key, outcome, file_sha256(folder / MANIFEST), reused=True)


def _move_aside(folder: Path) -> None:
    """Move an existing folder aside; it stays available for inspection until it is stale."""
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.{time.monotonic_ns()}.old.tmp")
        folder.replace(aside)
        os.utime(aside)


def _remove_stale(store: Path) -> None:
    """Remove stale drafts of killed processes and stale folders that were moved aside."""
    limit = time.time() - STALE_TEMPORARY_S
    for folder in store.glob(".*.tmp"):
        if folder.stat().st_mtime <= limit:
            rmtree(folder, ignore_errors=True)
