"""`synth import`: a user's file taken in, with a report of every row that was repaired or rejected."""

from pathlib import Path

from resources.storage import Home
from synth_assets.commands.session import Session
from synth_assets.generation.formats import ROLES
from synth_assets.generation.imports import ImportReport, import_file


def import_text(session: Session, file: Path, format: str | None, columns: tuple[str, ...]) -> str:  # noqa: A002
    """Import a file and describe what became of its rows.

    Raises:
        ValueError: the file cannot be used, or a column option is not ours=theirs.
    """
    if not file.is_file():
        raise ValueError(f"{file} is not a file")
    roles = dict(_pair(option) for option in columns)
    report = import_file(file, Home(folder=str(session.home)).imports(), format, roles or None)
    return report_text(report)


def report_text(report: ImportReport) -> str:
    """The report in lines: counts, then each reason with the first line numbers."""
    lines = [f"{report.name}: {report.kept:,} {report.gives} kept, read as {report.format}"]
    lines += [f"  repaired {count:,}: {what}" for what, count in report.repaired.most_common()]
    for reason, count in report.rejected.most_common():
        numbers = report.lines.get(reason, [])
        shown = ", ".join([*map(str, numbers), *(["..."] if count > len(numbers) else [])])
        lines.append(f"  rejected {count:,}: {reason} (lines {shown})")
    lines.append("Next: synth run --select 'key:imported_instructions+'")
    return "\n".join(lines)


def _pair(option: str) -> tuple[str, str]:
    ours, equals, theirs = option.partition("=")
    if not (ours and equals and theirs):
        raise ValueError(f"--column wants ours=theirs with ours one of {', '.join(ROLES)}, not {option!r}")
    return ours, theirs
