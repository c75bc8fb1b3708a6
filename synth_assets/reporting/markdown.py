"""Markdown tables."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from synth_assets.reporting.escaping import escaped

T = TypeVar("T")


def escaped_cell(value: object) -> str:
    """Return a value as the text of a cell, with Markdown and HTML escaped."""
    return escaped(str(value))


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[T]],
    *,
    numbers: Sequence[str] = (),
    cell: Callable[[T], str] = escaped_cell,
) -> str:
    """Return a Markdown table.

    Args:
        headers: names of the columns.
        rows: values of each row, as many as columns.
        numbers: columns to align to the right.
        cell: renders a value as Markdown; by default its escaped text.

    Raises:
        ValueError: a row has more or fewer values than there are columns.
    """
    marks = "|".join("---:" if name in numbers else "---" for name in headers)
    lines = [_line(map(escaped, headers)), f"|{marks}|"]
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"expected {len(headers)} cells in a row, got {len(row)}")
        lines.append(_line(map(cell, row)))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
