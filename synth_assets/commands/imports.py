"""`synth import`: a user's files or a published set taken in, with a report of each row repaired or rejected."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from resources import model_files
from synth_assets.commands.session import Session
from synth_assets.generation.formats import ROLES
from synth_assets.generation.hub import PREFIX, hub_set
from synth_assets.generation.imports import ImportOptions, ImportReport, import_file, options_path
from synth_assets.generation.readers import READERS, ImportFileError

NEXT = "Next: synth run --select 'key:imported_instructions+'"


def allow_network(source: str) -> None:
    """Let a published set be fetched on the tier cpu, which else keeps the hub's library offline.

    To be called before the deployment is set up; HF_HUB_OFFLINE of the user's own wins.
    """
    if source.startswith(PREFIX):
        os.environ.setdefault("HF_HUB_OFFLINE", "0")


def import_text(session: Session, source: str, format: str | None, columns: tuple[str, ...]) -> str:  # noqa: A002
    """Import what a source names and describe what became of its rows.

    Args:
        session: the deployment.
        source: a file, a folder of files, or `hub:<name>` of a published set.
        format: a key of FORMATS; found by looking where None.
        columns: "ours=theirs", or several of them with commas between.

    Raises:
        ValueError: nothing of it can be used, or a column option is not ours=theirs.
    """
    roles = dict(_pair(pair) for option in columns for pair in option.split(","))
    folder = session.storage.imports()
    if source.startswith(PREFIX):
        lines = list(_import_hub(source, folder, ImportOptions(format, roles or None)))
    elif Path(source).is_dir():
        lines = list(_import_folder(Path(source), folder, ImportOptions(format, roles or None)))
    elif Path(source).is_file():
        lines = [report_text(import_file(Path(source), folder, ImportOptions(format, roles or None)))]
    else:
        raise ValueError(f"{source} is no file, no folder and no {PREFIX}<name>")
    return "\n".join([*lines, f"Each report is kept in {options_path(folder / 'FILE')}", NEXT])


def report_text(report: ImportReport) -> str:
    """The report in lines: counts, then each reason with the first line numbers."""
    lines = [f"{report.name}: {report.kept:,} {report.gives} kept, read as {report.format}"]
    lines += [f"  repaired {count:,}: {what}" for what, count in report.repaired.most_common()]
    for reason, count in report.rejected.most_common():
        numbers = report.lines.get(reason, [])
        shown = ", ".join([*map(str, numbers), *(["..."] if count > len(numbers) else [])])
        lines.append(f"  rejected {count:,}: {reason} (lines {shown})")
    return "\n".join(lines)


def _import_folder(source: Path, folder: Path, options: ImportOptions) -> Iterator[str]:
    """A report for each file under `source`; one that cannot be used is told and the others are imported."""
    files = sorted(p for p in source.rglob("*") if p.is_file() and p.suffix.lower() in READERS)
    if not files:
        raise ValueError(f"{source} holds no file that ends in {', '.join(READERS)}")
    refused: list[str] = []
    for file in files:
        name = "-".join(file.relative_to(source).parts)
        try:
            yield report_text(import_file(file, folder, options, name))
        except ImportFileError as error:
            refused.append(f"{name}: not imported: {error}")
            yield refused[-1]
    if len(refused) == len(files):
        raise ValueError(f"no file of {source} could be imported; {refused[0]}")


def _import_hub(source: str, folder: Path, options: ImportOptions) -> Iterator[str]:
    """A report for each file of a published set, fetched at the commit that its default branch has now."""
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
        yield report_text(import_file(file, folder, own, f"{source.removeprefix(PREFIX)}-{file.name}"))


def _pair(option: str) -> tuple[str, str]:
    ours, equals, theirs = option.partition("=")
    if not (ours and equals and theirs):
        raise ValueError(f"--column wants ours=theirs with ours one of {', '.join(ROLES)}, not {option!r}")
    return ours, theirs
