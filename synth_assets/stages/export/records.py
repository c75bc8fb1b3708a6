"""Records of the exported folders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synth_assets.schemas.records import ChampionRecord
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.hub import Pushed, Release
from synth_assets.stages.export.merge import LogitDifference
from synth_assets.stages.export.ollama_export import OllamaResult
from synth_assets.stages.export.source import ExportedVersion
from synth_assets.stages.export.write import GgufResult
from synth_assets.storage.manifests import MANIFEST, file_sha256

STORE = "exports"  # folder of SYNTH_HOME


@dataclass(frozen=True)
class ExportIdentity(ExportedVersion):
    """What was exported, and where its folder is.

    Attributes:
        dtype: precision of the merged weights.
        path: folder below SYNTH_HOME.
        manifest_sha256: hash of the folder's manifest.
    """

    dtype: str
    path: str
    manifest_sha256: str

    def request(self) -> dict[str, object]:
        """Return what identifies the merged model."""
        return {**self.facts(), "dtype": self.dtype}


@dataclass(frozen=True)
class MergedModel(ExportIdentity):
    """A merged model."""

    logits: LogitDifference


@dataclass(frozen=True)
class GgufModel(ExportIdentity):
    """GGUF files of a merged model."""

    result: GgufResult


@dataclass(frozen=True)
class OllamaModel(ExportIdentity):
    """An Ollama model."""

    result: OllamaResult


@dataclass(frozen=True)
class HubRelease(ExportIdentity):
    """A release; `pushed` is None if no repository was configured."""

    release: Release
    pushed: Pushed | None = None


def export_path(home: Path, adapter: str, kind: str) -> Path:
    """Return the folder of an export in SYNTH_HOME."""
    return home / STORE / adapter / kind


def place(home: Path, folder: Path) -> Mapping[str, str]:
    """Return the fields of a record that say where a finished export is."""
    return {"path": folder.relative_to(home).as_posix(), "manifest_sha256": file_sha256(folder / MANIFEST)}


def version_to_export(version: str | None, champion: ChampionRecord) -> str:
    """Return the number of the version to export: the configured one, else the champion's.

    Raises:
        ExportError: the base model serves.
    """
    if number := version or champion.version:
        return number
    raise ExportError("the base model serves, so there is no adapter to export: promote a version, or set `version`")
