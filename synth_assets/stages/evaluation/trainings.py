"""What the trainings behind adapters left on disk: their curves, and the size of what they published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synth_assets.reporting.training_figures import Training, training_of
from synth_assets.schemas.records import AdapterRecord
from synth_assets.storage.manifests import MANIFEST, ManifestError, read_manifest


@dataclass(frozen=True)
class Trace:
    """One adapter on disk.

    Attributes:
        adapter: its record.
        training: its curve and phases; without points where an older version of the code trained it.
        size_bytes: of the published files; 0 where they cannot be read.
        tokens: that it was trained on, without padding; 0 where nobody kept the number.
        problem: why the files cannot be read; empty where they can.
    """

    adapter: AdapterRecord
    training: Training
    size_bytes: int = 0
    tokens: int = 0
    problem: str = ""


def traces(adapters: Sequence[AdapterRecord], root: Path) -> list[Trace]:
    """One for each adapter that was trained, in order; a folder that was removed or damaged is told, not raised."""
    return [_trace(adapter, root / adapter.path) for adapter in adapters if not adapter.failure]


def _trace(adapter: AdapterRecord, folder: Path) -> Trace:
    try:
        facts = read_manifest(folder)
    except ManifestError as error:
        problem = str(error).replace(str(folder), adapter.path)
        return Trace(adapter, Training(adapter.name, ()), problem=problem)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    outcome = facts.get("outcome", {})
    return Trace(adapter, training_of(adapter.name, outcome), size, outcome.get("tokens", 0))
