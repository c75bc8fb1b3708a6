"""What became of the records of an imported file, for the terminal, the run's log and the file beside the import."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.generation.import_formats import Chosen, shown
from synth_assets.stages.generation.reasons import REPAIRS, explained

LINES_SHOWN = 10
NAMES_COUNTED = 50  # a file may have columns without end
NAME_CHARACTERS = 80
NAMES_SHOWN = 20
MEASURED = ("weight", "score")
OTHER = "others"


@dataclass
class TooLong:
    """How many rows the base in use cannot take; `measured` rows were looked at, the first of the file."""

    base: str
    context_tokens: int
    rows: int = 0
    measured: int = 0


@dataclass
class ImportReport:
    """What became of a file's records: counts are exact, line numbers the first LINES_SHOWN of each reason.

    Attributes:
        name: of the import.
        kept: rows of each table, "instructions" and "preferences".
        formats: records of each format.
        columns: format -> role -> the columns that had it.
        unused: column -> records that fill it and whose format does not use it.
        unused_fields: the same of the fields of turns.
        measures: of a column with a weight or score, how many values it has, the least and the greatest.
        repaired: what was changed -> records.
        rejected: reason -> records.
        lines: reason -> lines of the first ones.
        too_long: rows that the base in use cannot take; None where nobody counted.
    """

    name: str
    kept: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    columns: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    unused_fields: Counter[str] = field(default_factory=Counter)
    measures: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    repaired: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)
    too_long: TooLong | None = None
    _known: dict[int, Chosen] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        """Rows kept in both tables."""
        return self.kept.total()

    def reject(self, reason: str, line: int) -> None:
        """Count a rejected record."""
        self.rejected[reason] += 1
        lines = self.lines.setdefault(reason, [])
        if len(lines) < LINES_SHOWN:
            lines.append(line)

    def read(self, record: Mapping[str, Any], present: Iterable[str], chosen: Chosen) -> None:
        """Count a record, the columns that it fills and its format does not use, and its weight and score."""
        self.formats[chosen.name] += 1
        if id(chosen) not in self._known:
            self._note(chosen)
        used = set(chosen.columns.values())
        _count(self.unused, (name for name in present if name not in used))
        for role in MEASURED:
            if (column := chosen.columns.get(role)) and (value := _number(record.get(column))) is not None:
                count, least, greatest = self.measures.get(column, (0, value, value))
                self.measures[column] = (count + 1, min(least, value), max(greatest, value))

    def _note(self, chosen: Chosen) -> None:
        """Note which column has which role."""
        self._known[id(chosen)] = chosen
        roles = self.columns.setdefault(chosen.name, {})
        for role, column in chosen.columns.items():
            if column not in roles.setdefault(role, []):
                roles[role].append(column)

    def count_fields(self, names: Iterable[str]) -> None:
        """Count the fields of a record's turns that nothing uses."""
        _count(self.unused_fields, names)

    def facts(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        facts: dict[str, Any] = {"name": self.name, "format": ", ".join(self.formats), "kept": dict(self.kept)}
        for name in ("formats", "columns", "unused", "unused_fields", "repaired", "rejected", "lines"):
            facts[name] = dict(getattr(self, name))
        facts["measures"] = {column: list(numbers) for column, numbers in self.measures.items()}
        return facts | {"too_long_for_base": vars(self.too_long) if self.too_long else None}


def report_lines(report: ImportReport) -> list[str]:
    """Return the report in lines: counts, the meaning of columns, then each reason with its first line numbers."""
    kept = [f"{count:,} {name[:-1] if count == 1 else name} kept" for name, count in report.kept.items()]
    lines = [f"{terminal_line(report.name)}: {', '.join(kept) or 'nothing kept'}"]
    for name, columns in report.columns.items():
        meaning = ", ".join(f"{role}={'/'.join(map(terminal_line, names))}" for role, names in columns.items())
        lines.append(f"  read as {name} ({meaning}): {report.formats[name]:,}")
    if report.unused or report.unused_fields:
        lines.append(f"  not used: {_unused(report)}")
    for column, (count, least, greatest) in report.measures.items():
        lines.append(
            f"  {terminal_line(column)}: {count:,} numbers from {least:g} to {greatest:g}, no trainer uses them"
        )
    for what, count in report.repaired.most_common():
        lines.append(f"  repaired {count:,}: {what} ({REPAIRS[what]})")
    for reason, count in report.rejected.most_common():
        lines.append(_rejected(reason, count, report.lines.get(reason, [])))
    return lines + _too_long(report)


def _rejected(reason: str, count: int, lines: list[int]) -> str:
    word = "line" if count == 1 else "lines"
    numbers = ", ".join([*map(str, lines), *(["..."] if count > len(lines) else [])])
    meaning = explained(reason)
    return f"  rejected {count:,}: {terminal_line(reason)} ({word} {numbers}){f': {meaning}' if meaning else ''}"


def _unused(report: ImportReport) -> str:
    parts = [("columns" if len(report.unused) > 1 else "column", report.unused)]
    parts.append(("turn fields" if len(report.unused_fields) > 1 else "turn field", report.unused_fields))
    return "; ".join(f"{word} {_counts(names)}" for word, names in parts if names)


def _counts(names: Counter[str]) -> str:
    first = [f"{shown([name])} ({count:,})" for name, count in names.most_common(NAMES_SHOWN)]
    more = len(names) - len(first)
    return ", ".join([*first, *([f"and {more} more"] if more > 0 else [])])


def _too_long(report: ImportReport) -> list[str]:
    found = report.too_long
    if found is None or not found.rows:
        return []
    if found.measured == report.rows:
        many = f"{found.rows:,} of {report.rows:,} rows need"
    else:
        many = f"{found.rows:,} of the first {found.measured:,} rows (of {report.rows:,}) need"
    return [
        f"  too_long_for_base: {many} more than the {found.context_tokens:,} tokens of {found.base}, chat template "
        "included, and the filter will reject them. Set SYNTH_BASE to a model with a longer context to train on them; "
        "`synth models` lists some"
    ]


def _count(counter: Counter[str], names: Iterable[str]) -> None:
    for name in names:
        cut = name[:NAME_CHARACTERS]
        counter[cut if cut in counter or len(counter) < NAMES_COUNTED else OTHER] += 1


def _number(value: object) -> float | None:
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None
