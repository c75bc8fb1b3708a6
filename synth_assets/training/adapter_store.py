"""Adapters by content: one folder for each set of inputs, whole or not there at all."""

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
    """Everything that determines an adapter.

    Args:
        name: the asset's name.
        method: as in `AdapterRecord`.
        spec: the method's settings.
        base: the base's public name.
        base_revision: its commit, or the hash of its files.
        inputs: name -> content hash of each table that is trained on, and of the adapter that is continued.
        tier: what of the hardware changes the numbers: dtype, quantisation, batch.
        version: of the method's code (versions.py).
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
        """Return sixteen hex digits of the recipe and the libraries' versions.

        Settings of the spec that are None are left out, so that a new one that is off by default trains nothing again.
        """
        return fingerprint({**asdict(self), "spec": spec_settings(self.spec)}, library_versions())


@dataclass(frozen=True)
class StoredAdapter:
    """A complete adapter on disk; `reused` where it was there before."""

    folder: Path
    fingerprint: str
    outcome: Outcome
    manifest_sha256: str
    reused: bool


def library_versions() -> dict[str, str]:
    """The versions of the libraries that decide a number."""
    return {name: version(name) for name in LIBRARIES}


def stored_or_trained(
    store: Path, recipe: Recipe, train: Callable[[], Trained], *, force: bool = False
) -> StoredAdapter:
    """The adapter of `recipe`: the intact one under `store`, or one trained now.

    A damaged folder is moved aside with a warning and trained again; so is an intact one with `force`.

    Raises:
        TrainingError: from `train`; nothing is published.
    """
    key = recipe.fingerprint()
    folder = store / key
    _sweep(store)
    if not force and (found := _intact(folder, key)):
        return found
    trained = train()
    draft = store / f".{key}.{os.getpid()}.{time.monotonic_ns()}.tmp"
    try:
        draft.mkdir(parents=True)
        trained.save(draft)
        if pickles := [p.name for p in draft.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]:
            raise TrainingError(f"the adapter would hold {pickles[0]}: only safetensors are published")
        write_manifest(draft, {"recipe": asdict(recipe), "fingerprint": key, "outcome": asdict(trained.outcome)})
        sync_folder_tree(draft)
        if not force and (found := _intact(folder, key)):
            return found  # another process was faster
        _set_aside(folder)
        draft.replace(folder)
    finally:
        rmtree(draft, ignore_errors=True)
    return StoredAdapter(folder, key, trained.outcome, file_sha256(folder / MANIFEST), reused=False)


def known_rate(store: Path, recipe: Recipe) -> float | None:
    """Tokens a second of the newest adapter here of the same method, base and hardware; None where there is none."""
    alike = ("method", "base", "tier")
    wanted = {name: asdict(recipe)[name] for name in alike}
    for manifest in sorted(store.glob(f"[!.]*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            facts = json.loads(manifest.read_text("utf-8"))["facts"]
            if {name: facts["recipe"][name] for name in alike} == wanted:
                return float(facts["outcome"]["tokens_per_s"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: whoever wants this adapter will say so
    return None


def _intact(folder: Path, key: str) -> StoredAdapter | None:
    if not folder.exists():
        return None
    try:
        facts = read_manifest(folder)
        outcome = Outcome(**facts["outcome"])
    except (ManifestError, ValueError, TypeError, KeyError) as error:
        logging.getLogger(__name__).warning("adapter %s is damaged and trained again: %s", key, error)
        return None
    return StoredAdapter(folder, key, outcome, file_sha256(folder / MANIFEST), reused=True)


def _set_aside(folder: Path) -> None:
    """Move what lies under the final name out of the way; kept until it is stale, for whoever wants to look."""
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.{time.monotonic_ns()}.old.tmp")
        folder.replace(aside)
        os.utime(aside)


def _sweep(store: Path) -> None:
    """Remove drafts that killed writers left, and folders set aside, once they are stale."""
    limit = time.time() - STALE_TEMPORARY_S
    for folder in store.glob(".*.tmp"):
        if folder.stat().st_mtime <= limit:
            rmtree(folder, ignore_errors=True)
