"""The model version to export: its adapter and its base model, on disk."""

from dataclasses import dataclass
from pathlib import Path

from synth_assets.registry.mlflow_tracker import MlflowTracker
from synth_assets.registry.model_versions import adapter_record, ensure_adapter
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.merge import check_mergeable


@dataclass(frozen=True)
class ExportedVersion:
    """The version that is exported.

    Attributes:
        version: number of the registered version.
        adapter: fingerprint of its adapter.
        base: name of the base model.
        base_revision: its commit or content hash.
    """

    version: str
    adapter: str
    base: str
    base_revision: str

    def facts(self) -> dict[str, str]:
        """Return what identifies the exported weights, without paths."""
        return {
            "version": self.version,
            "adapter": self.adapter,
            "base": self.base,
            "base_revision": self.base_revision,
        }


@dataclass(frozen=True)
class ExportSource(ExportedVersion):
    """A version with its files.

    Attributes:
        base_folder: folder of the base model's weights.
        adapter_folder: folder of the LoRA adapter.
        evaluation: description of the version in the registry: its card's scores and decision.
    """

    base_folder: Path
    adapter_folder: Path
    evaluation: str = ""


def source_of(tracker: MlflowTracker, number: str, base: ModelRecord, base_folder: Path, home: Path) -> ExportSource:
    """Return a registered version, downloading its adapter from the registry if the home has lost it.

    Raises:
        ExportError: the version was trained on another base model, or is no LoRA adapter.
        LineageError: the registry has lost its files.
        KeyError: the version does not exist.
    """
    record = adapter_record(tracker, number)
    if record.base_revision != base.revision:
        raise ExportError(
            f"version {number} was trained on {record.base} {record.base_revision}, the base model is now "
            f"{base.name} {base.revision}: configure its base model, or export another version"
        )
    folder = home / record.path
    ensure_adapter(tracker, number, folder)
    check_mergeable(folder)
    evaluation = str(tracker.registered(number).description or "")
    return ExportSource(number, record.fingerprint, base.name, base.revision, base_folder, folder, evaluation)
