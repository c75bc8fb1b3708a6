"""`synth import`: a user's files or a published set taken in, with a report of each row repaired or rejected."""

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

NEXT = "Next: synth run --select 'key:imported_instructions+'"
UNREAD_SHOWN = 20
ROLE_NAMES = (*ROLES, *ALIASES)
NEXT_ROLE = re.compile(rf",(?=(?:{'|'.join(ROLE_NAMES)})=)")  # a column's own name may hold a comma

MakeCounter = Callable[[], Callable[[pl.DataFrame], TooLong | None]]


@dataclass(frozen=True)
class ImportArguments:
    """The options of the command.

    Attributes:
        format: a key of FORMATS; of each record by its columns where None.
        columns: "ours=theirs", or several of them with commas between.
        name: of the import; of a folder or a set, how the names of its imports begin.
        replace: imports of the same names may be replaced.
    """

    format: str | None = None
    columns: tuple[str, ...] = ()
    name: str | None = None
    replace: bool = False


def allow_network(source: str) -> None:
    """Let a published set be fetched on the tier cpu, which else keeps the hub's library offline.

    To be called before the deployment is set up; HF_HUB_OFFLINE of the user's own wins.
    """
    if source.startswith(PREFIX):
        os.environ.setdefault("HF_HUB_OFFLINE", "0")


def import_text(session: Session, source: str, order: ImportArguments) -> str:
    """Import what a source names and return what became of its rows.

    Args:
        session: the deployment.
        source: a file, a folder of files, or `hub:<name>` of a published set.
        order: the options.

    Raises:
        ValueError: nothing of it can be used, a name is taken, or a column option is not ours=theirs.
    """
    if order.name is not None:
        safe_name(order.name)
    options = ImportOptions(order.format, _roles(order.columns) or None)
    folder, counter, path = session.storage.imports(), counter_of(session), Path(source)
    if source.startswith(PREFIX):
        lines = list(_import_hub(source, folder, order, options, counter))
    elif path.is_dir():
        lines = list(_import_folder(path, folder, order, options, counter))
    elif path.is_file():
        request = ImportRequest(path, options, order.name, order.replace)
        lines = _imported(request, folder, counter)
    else:
        raise ValueError(f"{source} is no file, no folder and no {PREFIX}<name>")
    return "\n".join([*lines, f"Each report is kept in {manifest_path(folder, 'NAME')}", NEXT])


def _imported(request: ImportRequest, folder: Path, counter: MakeCounter) -> list[str]:
    """Import one file and return its report in lines."""
    done = import_file(request, folder, counter())
    if isinstance(done, StoredImport):
        return [f"{done.name}: imported before with the same content and options; nothing changed"]
    return report_lines(done)


def _import_folder(
    source: Path, folder: Path, order: ImportArguments, options: ImportOptions, counter: MakeCounter
) -> Iterator[str]:
    """Yield a report for each file under `source`, then which were not read; a refused file stops no other."""
    files, unread = _files_under(source)
    if not files:
        raise ValueError(
            f"{source} holds no file that ends in {', '.join(READERS)}, or with {' or '.join(COMPRESSIONS)} behind it"
            + (f"; not read: {', '.join(unread[:UNREAD_SHOWN])}" if unread else "")
        )
    names = {
        file: default_name("-".join([*([order.name] if order.name else []), *file.relative_to(source).parts]))
        for file in files
    }
    shared = Counter(names.values())
    refused: list[str] = []
    for file, name in names.items():
        shown = terminal_line(str(file.relative_to(source)))
        try:
            if shared[name] > 1:
                raise RecordFileError(f"other files of the folder would be called {name} as well; rename one")
            yield from _imported(ImportRequest(file, options, name, order.replace), folder, counter)
        except RecordFileError as error:
            refused.append(f"{shown}: not imported: {error}")
            yield refused[-1]
    if len(refused) == len(files):
        raise ValueError(f"no file of {source} could be imported; {refused[0]}")
    if unread:
        more = len(unread) - UNREAD_SHOWN
        yield f"not read: {', '.join([*unread[:UNREAD_SHOWN], *([f'and {more:,} more'] if more > 0 else [])])}"


def _files_under(source: Path) -> tuple[list[Path], list[str]]:
    """Return the files that can be read, at any depth, and the names of those that cannot, with the cause."""
    files: list[Path] = []
    unread: list[str] = []

    def refuse(path: Path, cause: str) -> None:
        unread.append(f"{terminal_line(str(path.relative_to(source)))} ({cause})")

    def unreadable(error: OSError) -> None:
        refuse(Path(error.filename), error.strerror or "unreadable")

    for root, folders, names in os.walk(source, onerror=unreadable):
        for name in sorted(folders):
            if name.startswith("."):
                refuse(Path(root, name), "hidden")
            elif Path(root, name).is_symlink():
                refuse(Path(root, name), "a link to a folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in sorted(Path(root, name) for name in names):
            if path.name.startswith("."):
                refuse(path, "hidden")
            elif not path.is_file():
                refuse(path, "no file")
            elif not readable(path):
                refuse(path, f"ends in {path.suffix}" if path.suffix else "no suffix")
            else:
                files.append(path)
    return files, unread


def _import_hub(
    source: str, folder: Path, order: ImportArguments, options: ImportOptions, counter: MakeCounter
) -> Iterator[str]:
    """Yield a report for each file of a published set, fetched at the commit that its default branch has now."""
    row = hub_set(source)
    fetched = model_files.fetch(row.repository, None, list(row.files), kind="dataset")
    files = sorted(path for pattern in row.files for path in fetched.glob(pattern))
    if not files:
        raise ValueError(f"{row.repository} has no {', '.join(row.files)} any more: download it and import the file")
    yield f"{row.repository} at {fetched.name}, licence {row.licence}: see that it allows what you want to do"
    for file in files:
        origin: Mapping[str, str] = {
            "repository": row.repository,
            "revision": fetched.name,
            "file": str(file.relative_to(fetched)),
            "licence": row.licence,
        }
        own = ImportOptions(options.format or row.format, options.columns or dict(row.columns) or None, origin)
        name = default_name(f"{order.name or source.removeprefix(PREFIX)}-{file.name}")
        yield from _imported(ImportRequest(file, own, name, order.replace), folder, counter)


def _roles(columns: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each role; raise ValueError for an option that is not ours=theirs."""
    roles: dict[str, str] = {}
    for pair in (pair for option in columns for pair in NEXT_ROLE.split(option)):
        ours, equals, theirs = pair.partition("=")
        ours = ALIASES.get(ours, ours)
        if not equals or ours not in ROLES:
            raise ValueError(f"--column expects ours=theirs with ours one of {', '.join(ROLE_NAMES)}, got {pair!r}")
        if ours in roles:
            raise ValueError(f"--column gives the role {ours} to {roles[ours]!r} and to {theirs!r}; give it once")
        roles[ours] = theirs
    return roles
