"""`synth export`: write a model version to a folder in a format that other programs serve, or release it on a hub."""

import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from resources.inference import Inference
from synth_assets.cli.session import Session
from synth_assets.cli.trace import version_of
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tables import SFT_ROWS
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.folders import check_disk, check_replaceable
from synth_assets.stages.export.gguf import QUANTISATIONS
from synth_assets.stages.export.hub import check_repository, export_release, licence_of, push
from synth_assets.stages.export.merge import LogitDifference, check_dtype
from synth_assets.stages.export.ollama import MODELFILE
from synth_assets.stages.export.ollama_export import SMALLEST_GOOD, GgufParts, check_quantisation, export_ollama
from synth_assets.stages.export.source import ExportSource, source_of
from synth_assets.stages.export.write import GgufOptions, export_gguf, export_merged, merged_bytes
from synth_assets.storage.blocks import Progress
from synth_assets.storage.stored_files import read_table

FORMATS = ("merged", "gguf", "ollama", "hub")
ONLINE = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
"""Defaults of a command that pushes to a hub; the tiers without hub models set both to 1."""


@dataclass(frozen=True)
class ExportCommand:
    """The arguments of one export.

    Attributes:
        version: number, alias or adapter of the version.
        kind: one of FORMATS.
        folder: the folder to write.
        dtype: precision of the merged weights.
        quantisation: GGUF quantisations, comma-separated; the one of an Ollama model.
        repository: hub repository to push to; empty: write the release without pushing it.
        licence: licence of the release; empty: that of the base model.
        private: create the repository as a private one.
    """

    version: str
    kind: str
    folder: Path
    dtype: str
    quantisation: str
    repository: str = ""
    licence: str = ""
    private: bool = True


def go_online(kind: str) -> None:
    """Allow this process to reach the hub if it releases a model, unless the user set the variables."""
    if kind == "hub":
        for name, value in ONLINE.items():
            os.environ.setdefault(name, value)


def export_version(session: Session, command: ExportCommand, progress: Progress) -> bool:
    """Export a version to a folder; return False if llama.cpp writes other text than Transformers.

    Raises:
        LineageError: there is no such version, or its files are lost.
        ExportError: the version cannot be exported, or the folder holds foreign files.
    """
    _check(command)
    folder = command.folder.expanduser().absolute()
    check_replaceable(folder)
    export = _Export(_source(session, command.version), command, _validation_rows(session), progress)
    lines, passed = {"merged": export.merged, "gguf": export.gguf, "ollama": export.ollama, "hub": export.hub}[
        command.kind
    ](folder)
    for line in lines:
        progress(line)
    return passed


@dataclass(frozen=True)
class _Export:
    """The steps of one export; each makes the folder that it is given, and returns lines and whether it passed."""

    source: ExportSource
    command: ExportCommand
    rows: pl.DataFrame
    progress: Progress

    def merged(self, folder: Path) -> tuple[list[str], bool]:
        return [self._merge(folder)[1].text()], True

    def gguf(self, folder: Path) -> tuple[list[str], bool]:
        result = self._gguf(folder).result
        return result.lines(), result.greedy.passed

    def ollama(self, folder: Path) -> tuple[list[str], bool]:
        quantisation = self.command.quantisation or SMALLEST_GOOD
        identity = {**self._identity(), "quantisations": list(self._options().quantisations)}
        result = export_ollama(identity, folder, quantisation, lambda work: self._gguf(work / "gguf"), self.progress)
        return [*result.lines(), f"next: ollama create NAME -f {folder / MODELFILE}"], result.greedy.passed

    def hub(self, folder: Path) -> tuple[list[str], bool]:
        licence = licence_of(self.source.base_folder, self.source.base, self.command.licence)
        export_release(
            self._identity(), folder, self.source, licence, lambda work: self._merge(work / "merged"), self.progress
        )
        if not self.command.repository:
            return ["not pushed: name a repository with --repository OWNER/NAME"], True
        pushed = push(folder, self.command.repository, private=self.command.private, progress=self.progress)
        return [f"{pushed.url}: {pushed.files} files fetched back unchanged at {pushed.revision}"], True

    def _identity(self) -> dict[str, object]:
        return {**self.source.facts(), "dtype": self.command.dtype}

    def _options(self) -> GgufOptions:
        names = self.command.quantisation.replace(SMALLEST_GOOD, "").split(",")
        return GgufOptions(tuple(filter(None, names)) or QUANTISATIONS)

    def _merge(self, folder: Path) -> tuple[Path, LogitDifference]:
        return folder, export_merged(self.source, folder, self.command.dtype, self.progress)

    def _gguf(self, folder: Path) -> GgufParts:
        tokenizer = self.source.base_folder
        result = export_gguf(
            self._identity(),
            folder,
            self._options(),
            self.rows,
            lambda work: self._merge_for_gguf(work / "merged"),
            self.progress,
        )
        return GgufParts(tokenizer, folder, result)

    def _merge_for_gguf(self, folder: Path) -> Path:
        base = self.source.base_folder
        check_disk(
            folder, merged_bytes(base) + self._options().file_bytes(base), "the merged model with its GGUF files"
        )
        return self._merge(folder)[0]


def _check(command: ExportCommand) -> None:
    """Raise ExportError for invalid arguments, before anything is loaded."""
    if command.kind not in FORMATS:
        raise ExportError(f"--to must be one of {', '.join(FORMATS)}, got {command.kind!r}")
    if command.repository and command.kind != "hub":
        raise ExportError("--repository is an option of --to hub")
    check_repository(command.repository)
    check_dtype(command.dtype)
    if command.kind == "gguf" and command.quantisation:
        GgufOptions(tuple(command.quantisation.split(","))).check()
    if command.kind == "ollama" and command.quantisation:
        check_quantisation(command.quantisation)


def _source(session: Session, name: str) -> ExportSource:
    number = version_of(session, name)
    base = session.record("base_model", ModelRecord)
    if base is None or session.tracker is None:
        raise ExportError("no base model has been materialised; run `synth run` first")
    return source_of(session.tracker, number, base, Inference(hardware=session.hardware).folder(base), session.home)


def _validation_rows(session: Session) -> pl.DataFrame:
    """Return the validation rows of the newest training data; empty if there is none."""
    path = session.home / "tables" / "sft_dataset.parquet"
    return read_table(path).filter(split="validation") if path.is_file() else pl.DataFrame(schema=SFT_ROWS)
