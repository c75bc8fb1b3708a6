"""Read training curves and file sizes of adapters from disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synth_assets.reporting.training_figures import Training, training_of
from synth_assets.schemas.records import AdapterRecord
from synth_assets.storage.manifests import MANIFEST, ManifestError, read_manifest


@dataclass(frozen=True)
class Trace:
    """Stored training data of one adapter.

    Attributes:
        adapter: its record.
        training: its curve and phases; without points if an older version of the code trained it.
        size_bytes: size of the published files; 0 if they cannot be read.
        tokens: tokens it was trained on, without padding; 0 if not recorded.
        problem: why the files cannot be read; empty if they can.
    """

    adapter: AdapterRecord
    training: Training
    size_bytes: int = 0
    tokens: int = 0
    problem: str = ""


def traces(adapters: Sequence[AdapterRecord], root: Path) -> list[Trace]:
    """Return one trace for each trained adapter, in order; missing or damaged folders are recorded as `problem`."""
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
