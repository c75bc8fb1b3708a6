"""`synth import`: import files or a published dataset, and report the repaired and rejected rows."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from synth_assets.cli.import_base import counter_of
from synth_assets.cli.session import Session
from synth_assets.llm import model_files
from synth_assets.record_files.reading import READERS, readable
from synth_assets.record_files.records import RecordFileError
from synth_assets.record_files.streams import COMPRESSIONS
from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.generation.hub import PREFIX, hub_set
from synth_assets.stages.generation.import_formats import ALIASES, ROLES
from synth_assets.stages.generation.import_report import TooLong, report_lines
from synth_assets.stages.generation.import_store import (
    ImportRequest,
    StoredImport,
    default_name,
    import_file,
    manifest_path,
    safe_name,
)
from synth_assets.stages.generation.imports import ImportOptions

NEXT_STEP = "Next: synth run, or synth run --samples 0 to use imported rows alone"
MAX_UNREAD_SHOWN = 20
ROLE_NAMES = (*ROLES, *ALIASES)
NEXT_ROLE = re.compile(rf",(?=(?:{'|'.join(ROLE_NAMES)})=)")  # a column name may contain a comma

MakeCounter = Callable[[], Callable[[pl.DataFrame], TooLong | None]]


@dataclass(frozen=True)
class ImportArguments:
    """Options of the command.

    Attributes:
        format: a key of FORMATS; None to detect it for each record from its columns.
        columns: "ours=theirs", or several of these separated by commas.
        name: name of the import; for a folder or a published dataset, the prefix of the names.
        replace: replace imports of the same names.
    """

    format: str | None = None
    columns: tuple[str, ...] = ()
    name: str | None = None
    replace: bool = False


def allow_network(source: str) -> None:
    """Let a published dataset be downloaded on the tier cpu, which is offline otherwise.

    Call it before the deployment is set up. A value of HF_HUB_OFFLINE that the user has set takes precedence.
    """
    if source.startswith(PREFIX):
        os.environ.setdefault("HF_HUB_OFFLINE", "0")


def import_text(session: Session, source: str, arguments: ImportArguments) -> str:
    """Import the files of a source and return the reports.

    Args:
        session: the deployment.
        source: a file, a folder of files, or `hub:<name>` for a published dataset.
        arguments: the options.

    Raises:
        ValueError: no row is usable, a name is taken, or a column option is not ours=theirs.
    """
    if arguments.name is not None:
        safe_name(arguments.name)
    options = ImportOptions(arguments.format, _roles(arguments.columns) or None)
    folder, counter, path = session.storage.imports(), counter_of(session), Path(source)
    if source.startswith(PREFIX):
        lines = list(_import_hub(source, folder, arguments, options, counter))
    elif path.is_dir():
        lines = list(_import_folder(path, folder, arguments, options, counter))
    elif path.is_file():
        request = ImportRequest(path, options, arguments.name, arguments.replace)
        lines = _import_one(request, folder, counter)
    else:
        raise ValueError(f"the source must be a file, a folder or {PREFIX}<name>, got {source}, which does not exist")
    return "\n".join([*lines, f"The reports are stored in {manifest_path(folder, 'NAME')}", NEXT_STEP])


def _import_one(request: ImportRequest, folder: Path, counter: MakeCounter) -> list[str]:
    """Import one file and return the lines of its report."""
    result = import_file(request, folder, counter())
    if isinstance(result, StoredImport):
        return [f"{result.name}: already imported with the same content and options; nothing changed"]
    return report_lines(result)


def _import_folder(
    source: Path, folder: Path, arguments: ImportArguments, options: ImportOptions, counter: MakeCounter
) -> Iterator[str]:
    """Yield a report for each file under `source`, then the skipped files. A rejected file does not stop the others."""
    files, unread = _files_under(source)
    if not files:
        raise ValueError(
            f"{source} must contain a file that ends in {', '.join(READERS)}, optionally followed by "
            f"{' or '.join(COMPRESSIONS)}; found none"
            + (f". Skipped: {', '.join(unread[:MAX_UNREAD_SHOWN])}" if unread else "")
        )
    names = {
        file: default_name("-".join([*([arguments.name] if arguments.name else []), *file.relative_to(source).parts]))
        for file in files
    }
    shared = Counter(names.values())
    rejected: list[str] = []
    for file, name in names.items():
        shown = terminal_line(str(file.relative_to(source)))
        try:
            if shared[name] > 1:
                raise RecordFileError(
                    f"other files of the folder have the import name {name} as well; rename one of them"
                )
            yield from _import_one(ImportRequest(file, options, name, arguments.replace), folder, counter)
        except RecordFileError as error:
            rejected.append(f"{shown}: not imported: {error}")
            yield rejected[-1]
    if len(rejected) == len(files):
        raise ValueError(f"no file of {source} could be imported; {rejected[0]}")
    if unread:
        more = len(unread) - MAX_UNREAD_SHOWN
        yield f"skipped: {', '.join([*unread[:MAX_UNREAD_SHOWN], *([f'and {more:,} more'] if more > 0 else [])])}"


def _files_under(source: Path) -> tuple[list[Path], list[str]]:
    """Return the readable files at any depth, and the names of the other files with the reason."""
    files: list[Path] = []
    unread: list[str] = []

    def skip(path: Path, reason: str) -> None:
        unread.append(f"{terminal_line(str(path.relative_to(source)))} ({reason})")

    def unreadable(error: OSError) -> None:
        skip(Path(error.filename), error.strerror or "unreadable")

    for root, folders, names in os.walk(source, onerror=unreadable):
        for name in sorted(folders):
            if name.startswith("."):
                skip(Path(root, name), "hidden")
            elif Path(root, name).is_symlink():
                skip(Path(root, name), "symbolic link to a folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in sorted(Path(root, name) for name in names):
            if path.name.startswith("."):
                skip(path, "hidden")
            elif not path.is_file():
                skip(path, "not a regular file")
            elif not readable(path):
                skip(path, f"ends in {path.suffix}" if path.suffix else "no suffix")
            else:
                files.append(path)
    return files, unread


def _import_hub(
    source: str, folder: Path, arguments: ImportArguments, options: ImportOptions, counter: MakeCounter
) -> Iterator[str]:
    """Download a published dataset at the current commit of its default branch; yield a report for each file."""
    row = hub_set(source)
    snapshot = model_files.fetch(row.repository, None, list(row.files), kind="dataset")
    files = sorted(path for pattern in row.files for path in snapshot.glob(pattern))
    if not files:
        raise ValueError(f"{row.repository} no longer has {', '.join(row.files)}; download it and import the file")
    yield f"{row.repository} at {snapshot.name}, licence {row.licence}: check that the licence allows your use"
    for file in files:
        origin: Mapping[str, str] = {
            "repository": row.repository,
            "revision": snapshot.name,
            "file": str(file.relative_to(snapshot)),
            "licence": row.licence,
        }
        file_options = ImportOptions(options.format or row.format, options.columns or dict(row.columns) or None, origin)
        name = default_name(f"{arguments.name or source.removeprefix(PREFIX)}-{file.name}")
        yield from _import_one(ImportRequest(file, file_options, name, arguments.replace), folder, counter)


def _roles(columns: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each role. Raises ValueError for an option that is not ours=theirs."""
    roles: dict[str, str] = {}
    for pair in (pair for option in columns for pair in NEXT_ROLE.split(option)):
        ours, equals, theirs = pair.partition("=")
        ours = ALIASES.get(ours, ours)
        if not equals or ours not in ROLES:
            raise ValueError(f"--column expects ours=theirs with ours one of {', '.join(ROLE_NAMES)}, got {pair!r}")
        if ours in roles:
            raise ValueError(f"--column must map {ours} once, got {roles[ours]!r} and {theirs!r}")
        roles[ours] = theirs
    return roles
