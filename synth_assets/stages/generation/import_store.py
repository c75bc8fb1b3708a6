"""The imports of a deployment: each a manifest that names its copy of the file, its options and its report.

A manifest is replaced in one rename and names the copy by its hash, so that file, options and report change together:
where the disk is full, or the process is killed, the import is what it was before. A file that a user puts into the
folder by hand is an import as well, read by looking.
"""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock

from synth_assets.record_files.reading import readable, refuse_other_names
from synth_assets.record_files.records import RecordFileError
from synth_assets.record_files.streams import split_suffix
from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.generation.import_report import ImportReport, TooLong
from synth_assets.stages.generation.imports import Imported, ImportOptions, chunks_of, frames_of, read_file
from synth_assets.stages.generation.reasons import explained
from synth_assets.storage.atomic import sweep_temporaries, write_atomically
from synth_assets.storage.manifests import file_sha256

DATA = "data"  # the folder of the copies
LOCK = ".lock"
MANIFEST_SUFFIX = ".import.json"
OPTIONS_SUFFIX = ".options.json"  # of files that were imported before there were manifests
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,119}")
HASH_DIGITS = 16
LONGEST = 120

CountTooLong = Callable[[pl.DataFrame], TooLong | None]
"""Takes the next rows of an import and returns the count so far."""


@dataclass(frozen=True)
class StoredImport:
    """An import: its name, the copy of its file, and how that is read.

    Attributes:
        name: source of its rows.
        path: of the file.
        options: how it is read.
        sha256: of the file when it was imported; empty for a file that a user put there.
        report: what was said when it was imported.
    """

    name: str
    path: Path
    options: ImportOptions
    sha256: str = ""
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ImportRequest:
    """What a user asks to be imported.

    Attributes:
        path: the file.
        options: how to read it, and where it is from.
        name: of the import; made from the file's name where None.
        replace: an import of that name may be replaced.
    """

    path: Path
    options: ImportOptions = field(default_factory=ImportOptions)
    name: str | None = None
    replace: bool = False


def import_file(
    request: ImportRequest, folder: Path, count_too_long: CountTooLong | None = None
) -> ImportReport | StoredImport:
    """Judge a file and store a copy of it with its options and report.

    Args:
        request: the file, and how it is to be read and called.
        folder: where the imports are.
        count_too_long: looks at the rows while they are judged.

    Returns:
        The report; the stored import if there is one of that name with the same content and options.

    Raises:
        RecordFileError: the name is unsafe or taken, or the file cannot be read or has no usable row.
    """
    path, options = request.path, request.options
    name = default_name(path.name) if request.name is None else safe_name(request.name)
    _refuse_unreadable_name(path)
    sha256 = file_sha256(path)
    if (stored := _import_of_name(request, folder, name, sha256)) is not None:
        return stored
    report = _judged(request, name, count_too_long)
    copy = f"{DATA}/{sha256[:HASH_DIGITS]}{''.join(split_suffix(path))}"
    facts = {"name": name, "file": copy, "sha256": sha256, **asdict(options), "report": report.facts()}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        if (stored := _import_of_name(request, folder, name, sha256)) is not None:  # another process was faster
            return stored
        try:
            _store_copy(path, folder / copy, sha256)
            text = json.dumps(facts, sort_keys=True, ensure_ascii=False, indent=1)
            write_atomically(manifest_path(folder, name), lambda temporary: _write(temporary, text))
            _remove_loose(folder, name)
        finally:
            _sweep(folder)
    return report


def stored_imports(folder: Path) -> list[StoredImport]:
    """Return the imports of a folder by name; RecordFileError for a damaged manifest."""
    if not folder.is_dir():
        return []
    found = {stored.name: stored for path in sorted(folder.iterdir()) if (stored := _loose(path)) is not None}
    for path in sorted(folder.glob(f"*{MANIFEST_SUFFIX}")):
        if not path.name.startswith("."):
            stored = _from_manifest(path)
            found[stored.name] = stored
    return [found[name] for name in sorted(found)]


def find_import(folder: Path, name: str) -> StoredImport | None:
    """Return the import of a name, None if there is none."""
    path = manifest_path(folder, name)
    return _from_manifest(path) if path.is_file() else _loose(folder / name)


def read_import(stored: StoredImport, scratch: Path | None = None) -> Imported:
    """Return the rows of an import; RecordFileError if its file is gone or cannot be read."""
    return read_file(_present(stored), stored.options, name=stored.name, scratch=scratch)


def line_of(stored: StoredImport, row_id: str) -> int | None:
    """Return the line (or the number of the record) that a row of an import came from, None if it holds no such row."""
    chunks = chunks_of(_present(stored), stored.options, ImportReport(stored.name))
    return next((each.line for chunk in chunks for each in chunk if each.row["row_id"] == row_id), None)


def manifest_path(folder: Path, name: str) -> Path:
    """Return where the manifest of an import is."""
    return folder / f"{name}{MANIFEST_SUFFIX}"


def safe_name(name: str) -> str:
    """Return the name; raise RecordFileError if it could leave the folder, hide, or pass for something else."""
    if not NAME.fullmatch(name) or name.endswith((OPTIONS_SUFFIX, MANIFEST_SUFFIX)):
        raise RecordFileError(
            f"{name!r} cannot name an import: letters, digits, space, dot, dash and underscore, "
            f"beginning with a letter or digit, at most {LONGEST} characters"
        )
    return name


def default_name(file_name: str) -> str:
    """Return the name of an import that nobody named: the file's, without what a name may not have."""
    if NAME.fullmatch(file_name) and not file_name.endswith((OPTIONS_SUFFIX, MANIFEST_SUFFIX)):
        return file_name
    plain = unicodedata.normalize("NFKD", file_name).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._ ")
    for suffix in (OPTIONS_SUFFIX, MANIFEST_SUFFIX):
        name = name.removesuffix(suffix)
    return safe_name(name[-LONGEST:].lstrip("-._ ") or "import")


def _judged(request: ImportRequest, name: str, count_too_long: CountTooLong | None) -> ImportReport:
    """Return the report on a file; raise RecordFileError if no row of it is usable."""
    report = ImportReport(name)
    for chunk in chunks_of(request.path, request.options, report):
        if count_too_long is not None:
            for frame in frames_of(chunk).values():
                report.too_long = count_too_long(frame) or report.too_long
    if not report.rows:
        reasons = ", ".join(f"{count:,} {terminal_line(reason)}" for reason, count in report.rejected.most_common())
        remedies = [f"{reason}: {text}" for reason in report.rejected if (text := explained(reason))]
        raise RecordFileError(
            f"{terminal_line(str(request.path))} has no usable row; rejected: {reasons}. {'; '.join(remedies)}".rstrip()
        )
    return report


def _import_of_name(request: ImportRequest, folder: Path, name: str, sha256: str) -> StoredImport | None:
    """Return the import of this name if it is the same; raise RecordFileError if it is another, not to be replaced."""
    stored = find_import(folder, name)
    if stored is not None and _same(stored, sha256, request.options):
        return stored
    if stored is not None and not request.replace:
        raise RecordFileError(
            f"there is an import named {name} already, with other content or options: pass --replace to replace it by "
            f"{terminal_line(str(request.path))}, or --name NAME to keep both"
        )
    return None


def _same(stored: StoredImport, sha256: str, options: ImportOptions) -> bool:
    known = stored.sha256 or file_sha256(stored.path)
    own, other = stored.options, options
    return (known, own.format, own.columns or {}) == (sha256, other.format, other.columns or {})


def _refuse_unreadable_name(path: Path) -> None:
    """Raise what `read_records` would raise for the name of a file, or for one that is not there."""
    refuse_other_names(path)
    if not path.is_file():
        raise RecordFileError(f"{path} cannot be read: there is no such file")


def _store_copy(source: Path, target: Path, sha256: str) -> None:
    def copy(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        if file_sha256(temporary) != sha256:
            raise RecordFileError(f"{source} changed while it was imported; import it again")

    if not target.is_file() or file_sha256(target) != sha256:
        write_atomically(target, copy)


def _sweep(folder: Path) -> None:
    """Remove copies that no manifest names, and what killed writers left."""
    try:
        named = {stored.path for stored in stored_imports(folder)}
    except RecordFileError:  # nobody knows which copy a damaged manifest names
        return
    for path in (folder / DATA).glob("*"):
        if path.is_file() and path not in named and not path.name.startswith("."):
            path.unlink(missing_ok=True)
    sweep_temporaries(folder)


def _remove_loose(folder: Path, name: str) -> None:
    """Remove a file that the manifest of the same name replaces, and its options."""
    for path in (folder / name, folder / f"{name}{OPTIONS_SUFFIX}"):
        path.unlink(missing_ok=True)


def _from_manifest(path: Path) -> StoredImport:
    try:
        facts = json.loads(path.read_text("utf-8"))
        options = ImportOptions(facts["format"], facts["columns"], facts["origin"])
        stored = StoredImport(facts["name"], path.parent / facts["file"], options, facts["sha256"], facts["report"])
    except (ValueError, LookupError, TypeError) as error:
        raise RecordFileError(
            f"{path} is damaged ({error!r}): remove it, and import the file again with synth import"
        ) from error
    if stored.path.parent != path.parent / DATA or manifest_path(path.parent, stored.name) != path:
        raise RecordFileError(f"{path} names {facts['file']} as {stored.name}: remove it, and import the file again")
    return stored


def _loose(path: Path) -> StoredImport | None:
    """Return the import that a user's file in the folder is; None for any other file."""
    special = path.name.startswith(".") or path.name.endswith((MANIFEST_SUFFIX, OPTIONS_SUFFIX))
    if special or not path.is_file() or not readable(path):
        return None
    beside = path.with_name(path.name + OPTIONS_SUFFIX)
    if not beside.is_file():
        return StoredImport(path.name, path, ImportOptions())
    try:
        options = json.loads(beside.read_text("utf-8"))
        known = ImportOptions(options.get("format"), options.get("columns"), options.get("origin"))
    except (ValueError, AttributeError) as error:
        raise RecordFileError(f"{beside} is damaged ({error}); import {path.name} again") from error
    return StoredImport(path.name, path, known, report=options.get("report"))


def _present(stored: StoredImport) -> Path:
    if not stored.path.is_file():
        raise RecordFileError(
            f"the file of the import {stored.name} is missing ({stored.path}): import it again with "
            f"synth import FILE --name {stored.name!r} --replace"
        )
    return stored.path


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
