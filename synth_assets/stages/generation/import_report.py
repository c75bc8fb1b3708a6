"""Report of an import: kept, repaired and rejected records, for the terminal, the log and the import's manifest."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from synth_assets.reporting.escaping import terminal_line
from synth_assets.stages.generation.import_formats import Chosen, shown
from synth_assets.stages.generation.reasons import REPAIRS, explained

MAX_LINES = 10
MAX_NAMES = 50  # bounds the memory for files with many columns
NAME_CHARACTERS = 80
MAX_SHOWN_NAMES = 20
MEASURED = ("weight", "score")
OTHER = "others"


@dataclass
class TooLong:
    """Number of rows that exceed the base's context, among the first `measured` rows."""

    base: str
    context_tokens: int
    rows: int = 0
    measured: int = 0


@dataclass
class ImportReport:
    """Counts of a file's records, with the first MAX_LINES line numbers of each reason.

    Attributes:
        name: name of the import.
        kept: rows of each table, "instructions" and "preferences".
        formats: records of each format.
        columns: format -> role -> its columns.
        unused: column -> records with a value that their format does not use.
        unused_fields: the same for fields of turns.
        measures: column with a weight or score -> number of values, minimum and maximum.
        repaired: repair -> records.
        rejected: reason -> records.
        lines: reason -> line numbers of the first records.
        too_long: rows that exceed the base's context; None if not counted.
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
        """Number of kept rows in both tables."""
        return self.kept.total()

    def reject(self, reason: str, line: int) -> None:
        """Count a rejected record."""
        self.rejected[reason] += 1
        lines = self.lines.setdefault(reason, [])
        if len(lines) < MAX_LINES:
            lines.append(line)

    def read(self, record: Mapping[str, Any], present: Iterable[str], chosen: Chosen) -> None:
        """Count a record, its unused columns, and its weight and score."""
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
        """Store which column has which role."""
        self._known[id(chosen)] = chosen
        roles = self.columns.setdefault(chosen.name, {})
        for role, column in chosen.columns.items():
            if column not in roles.setdefault(role, []):
                roles[role].append(column)

    def count_fields(self, names: Iterable[str]) -> None:
        """Count the unused fields of a record's turns."""
        _count(self.unused_fields, names)

    def facts(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        facts: dict[str, Any] = {"name": self.name, "format": ", ".join(self.formats), "kept": dict(self.kept)}
        for name in ("formats", "columns", "unused", "unused_fields", "repaired", "rejected", "lines"):
            facts[name] = dict(getattr(self, name))
        facts["measures"] = {column: list(numbers) for column, numbers in self.measures.items()}
        return facts | {"too_long_for_base": vars(self.too_long) if self.too_long else None}


def report_lines(report: ImportReport) -> list[str]:
    """Return the report as lines: counts, roles of columns, then each reason with its first line numbers."""
    kept = [f"{count:,} {name[:-1] if count == 1 else name} kept" for name, count in report.kept.items()]
    lines = [f"{terminal_line(report.name)}: {', '.join(kept) or 'nothing kept'}"]
    for name, columns in report.columns.items():
        meaning = ", ".join(f"{role}={'/'.join(map(terminal_line, names))}" for role, names in columns.items())
        lines.append(f"  read as {name} ({meaning}): {report.formats[name]:,}")
    if report.unused or report.unused_fields:
        lines.append(f"  not used: {_unused(report)}")
    for column, (count, least, greatest) in report.measures.items():
        lines.append(
            f"  {terminal_line(column)}: {count:,} numbers from {least:g} to {greatest:g}, not used in training"
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
    first = [f"{shown([name])} ({count:,})" for name, count in names.most_common(MAX_SHOWN_NAMES)]
    more = len(names) - len(first)
    return ", ".join([*first, *([f"and {more} more"] if more > 0 else [])])


def _too_long(report: ImportReport) -> list[str]:
    too_long = report.too_long
    if too_long is None or not too_long.rows:
        return []
    if too_long.measured == report.rows:
        many = f"{too_long.rows:,} of {report.rows:,} rows need"
    else:
        many = f"{too_long.rows:,} of the first {too_long.measured:,} rows (of {report.rows:,}) need"
    return [
        f"  too_long_for_base: {many} more than the {too_long.context_tokens:,} tokens of {too_long.base}, chat "
        "template included: the filter will reject them. To train on them, set SYNTH_BASE to a model with a longer "
        "context; "
        "`synth models` lists some"
    ]


def _count(counter: Counter[str], names: Iterable[str]) -> None:
    for name in names:
        cut = name[:NAME_CHARACTERS]
        counter[cut if cut in counter or len(counter) < MAX_NAMES else OTHER] += 1


def _number(value: object) -> float | None:
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None
