"""Store of imported files: each import is a manifest with the hash of its file copy, its options and its report.

A manifest is replaced atomically and refers to the copy by its hash, so that file, options and report change together
even if the disk is full or the process is killed. A file that a user puts into the folder is an import, too; its format
is detected.
"""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock

from synth_assets.record_files.reading import readable, refuse_other_names
from synth_assets.record_files.records import RecordFileError
from synth_assets.record_files.streams import split_suffix
from synth_assets.reporting.escaping import terminal_line
from synth_assets.schemas.tables import INSTRUCTIONS, PAIRS
from synth_assets.stages.generation.import_report import ImportReport, TooLong
from synth_assets.stages.generation.imports import Imported, ImportOptions, chunks_of, frames_of, read_file
from synth_assets.stages.generation.reasons import explained
from synth_assets.storage.atomic import sweep_temporaries, write_atomically, write_text
from synth_assets.storage.manifests import file_sha256

DATA = "data"  # folder of the file copies
LOCK = ".lock"
MANIFEST_SUFFIX = ".import.json"
OPTIONS_SUFFIX = ".options.json"  # of files imported by versions without manifests
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,119}")
HASH_DIGITS = 16
MAX_NAME_CHARACTERS = 120

CountTooLong = Callable[[pl.DataFrame], TooLong | None]
"""Return the count so far, given the next rows of an import."""


@dataclass(frozen=True)
class StoredImport:
    """An import: its name, file and options.

    Attributes:
        name: source of its rows.
        path: path of the file.
        options: how the file is read.
        sha256: hash of the file when it was imported; empty for a file that a user put there.
        report: report of the import.
    """

    name: str
    path: Path
    options: ImportOptions
    sha256: str = ""
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ImportRequest:
    """A request to import a file.

    Attributes:
        path: the file.
        options: how to read it, and its origin.
        name: name of the import; derived from the file's name if None.
        replace: whether an import of that name may be replaced.
    """

    path: Path
    options: ImportOptions = field(default_factory=ImportOptions)
    name: str | None = None
    replace: bool = False


def import_file(
    request: ImportRequest, folder: Path, count_too_long: CountTooLong | None = None
) -> ImportReport | StoredImport:
    """Validate a file and store a copy of it with its options and report.

    Args:
        request: the file, its options and its name.
        folder: folder of the imports.
        count_too_long: counts rows that exceed the base's context while they are read.

    Returns:
        The report, or the stored import if one of that name has the same content and options.

    Raises:
        RecordFileError: the name is unsafe or taken, or the file cannot be read or has no usable row.
    """
    path, options = request.path, request.options
    name = default_name(path.name) if request.name is None else safe_name(request.name)
    _refuse_unreadable_name(path)
    sha256 = file_sha256(path)
    if (stored := _import_of_name(request, folder, name, sha256)) is not None:
        return stored
    report = _report_on(request, name, count_too_long)
    copy = f"{DATA}/{sha256[:HASH_DIGITS]}{''.join(split_suffix(path))}"
    facts = {"name": name, "file": copy, "sha256": sha256, **asdict(options), "report": report.facts()}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        if (stored := _import_of_name(request, folder, name, sha256)) is not None:  # another process was faster
            return stored
        try:
            _store_copy(path, folder / copy, sha256)
            text = json.dumps(facts, sort_keys=True, ensure_ascii=False, indent=1)
            write_text(manifest_path(folder, name), text)
            _remove_unmanaged(folder, name)
        finally:
            _sweep(folder)
    return report


def stored_imports(folder: Path) -> list[StoredImport]:
    """Return the imports of a folder by name; RecordFileError for a damaged manifest."""
    if not folder.is_dir():
        return []
    by_name = {stored.name: stored for path in sorted(folder.iterdir()) if (stored := _unmanaged(path)) is not None}
    for path in sorted(folder.glob(f"*{MANIFEST_SUFFIX}")):
        if not path.name.startswith("."):
            stored = _from_manifest(path)
            by_name[stored.name] = stored
    return [by_name[name] for name in sorted(by_name)]


def find_import(folder: Path, name: str) -> StoredImport | None:
    """Return the import of a name, None if there is none."""
    path = manifest_path(folder, name)
    return _from_manifest(path) if path.is_file() else _unmanaged(folder / name)


def read_import(stored: StoredImport, scratch: Path | None = None) -> Imported:
    """Return the rows of an import; RecordFileError if its file is gone or cannot be read."""
    return read_file(_existing_file(stored), stored.options, name=stored.name, scratch=scratch)


def imported_tables(imported: Sequence[Imported]) -> dict[str, pl.LazyFrame]:
    """Return the rows of all imports by asset: INSTRUCTIONS and PAIRS, empty without imports."""
    instructions, preferences = [r.instructions for r in imported], [r.preferences for r in imported]
    return {
        "imported_instructions": pl.concat([pl.LazyFrame(schema=INSTRUCTIONS), *instructions]),
        "imported_preferences": pl.concat([pl.LazyFrame(schema=PAIRS), *preferences]),
    }


def line_of(stored: StoredImport, row_id: str) -> int | None:
    """Return the line (or the number of the record) that a row of an import came from, None if it holds no such row."""
    chunks = chunks_of(_existing_file(stored), stored.options, ImportReport(stored.name))
    return next((each.line for chunk in chunks for each in chunk if each.row["row_id"] == row_id), None)


def manifest_path(folder: Path, name: str) -> Path:
    """Return the path of an import's manifest."""
    return folder / f"{name}{MANIFEST_SUFFIX}"


def safe_name(name: str) -> str:
    """Return the name; raise RecordFileError if it is unsafe as a file name or has a reserved suffix."""
    if not NAME.fullmatch(name) or name.endswith((OPTIONS_SUFFIX, MANIFEST_SUFFIX)):
        raise RecordFileError(
            f"{name!r} cannot name an import: use letters, digits, space, dot, dash and underscore, "
            f"begin with a letter or digit, at most {MAX_NAME_CHARACTERS} characters"
        )
    return name


def default_name(file_name: str) -> str:
    """Return the default name of an import: the file's name without characters that are not allowed."""
    if NAME.fullmatch(file_name) and not file_name.endswith((OPTIONS_SUFFIX, MANIFEST_SUFFIX)):
        return file_name
    plain = unicodedata.normalize("NFKD", file_name).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._ ")
    for suffix in (OPTIONS_SUFFIX, MANIFEST_SUFFIX):
        name = name.removesuffix(suffix)
    return safe_name(name[-MAX_NAME_CHARACTERS:].lstrip("-._ ") or "import")


def _report_on(request: ImportRequest, name: str, count_too_long: CountTooLong | None) -> ImportReport:
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
    stored_sha256 = stored.sha256 or file_sha256(stored.path)
    first, second = stored.options, options
    return (stored_sha256, first.format, first.columns or {}) == (sha256, second.format, second.columns or {})


def _refuse_unreadable_name(path: Path) -> None:
    """Raise the error of `read_records` for a file name that cannot be read, or for a missing file."""
    refuse_other_names(path)
    if not path.is_file():
        raise RecordFileError(f"{path} cannot be read: no such file")


def _store_copy(source: Path, target: Path, sha256: str) -> None:
    def copy(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        if file_sha256(temporary) != sha256:
            raise RecordFileError(f"{source} changed during the import: import it again")

    if not target.is_file() or file_sha256(target) != sha256:
        write_atomically(target, copy)


def _sweep(folder: Path) -> None:
    """Remove copies without a manifest, and temporary files of killed writers."""
    try:
        named = {stored.path for stored in stored_imports(folder)}
    except RecordFileError:  # the copy of a damaged manifest is not known
        return
    for path in (folder / DATA).glob("*"):
        if path.is_file() and path not in named and not path.name.startswith("."):
            path.unlink(missing_ok=True)
    sweep_temporaries(folder)


def _remove_unmanaged(folder: Path, name: str) -> None:
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


def _unmanaged(path: Path) -> StoredImport | None:
    """Return the import of a file that a user put into the folder; None for any other file."""
    special = path.name.startswith(".") or path.name.endswith((MANIFEST_SUFFIX, OPTIONS_SUFFIX))
    if special or not path.is_file() or not readable(path):
        return None
    options_path = path.with_name(path.name + OPTIONS_SUFFIX)
    if not options_path.is_file():
        return StoredImport(path.name, path, ImportOptions())
    try:
        options = json.loads(options_path.read_text("utf-8"))
        import_options = ImportOptions(options.get("format"), options.get("columns"), options.get("origin"))
    except (ValueError, AttributeError) as error:
        raise RecordFileError(f"{options_path} is damaged ({error}); import {path.name} again") from error
    return StoredImport(path.name, path, import_options, report=options.get("report"))


def _existing_file(stored: StoredImport) -> Path:
    if not stored.path.is_file():
        raise RecordFileError(
            f"the file of the import {stored.name} is missing ({stored.path}): import it again with "
            f"synth import FILE --name {stored.name!r} --replace"
        )
    return stored.path
