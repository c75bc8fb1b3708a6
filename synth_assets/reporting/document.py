"""Render a report as Markdown and as a self-contained HTML page."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from synth_assets.reporting.escaping import escaped, terminal_line
from synth_assets.reporting.figures import COLUMNS, png
from synth_assets.reporting.markdown import table
from synth_assets.reporting.page_parts import (
    END_OF_OPENING,
    FILTER,
    OPENING,
    PARTS_STYLE,
    anchor,
    contents,
    findings_list,
)

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure as Drawing

MAX_TEXT_CHARACTERS = 2_000  # longer answers are truncated
TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Cell:
    """A table cell: text, and optionally a link to its evidence."""

    text: str
    link: str = ""


def cells(values: Iterable[object]) -> list[Cell]:
    """Return cells without links."""
    return [Cell(str(value)) for value in values]


@dataclass(frozen=True)
class Table:
    """A table. Columns in `numbers` are right-aligned; the last cell of a short row spans the remaining columns."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A figure, stored beside the report under `name`; `narrow` is an optional version for phones."""

    name: str
    caption: str
    png: bytes
    narrow: bytes = b""


@dataclass(frozen=True)
class Sample:
    """A prompt and its answers: a label with model and score, and the text."""

    prompt: str
    answers: Sequence[tuple[str, str]]
    one_right: bool = False  # whether exactly one of two answers is right


@dataclass(frozen=True)
class Points:
    """A bullet list."""

    sentences: Sequence[str]


Block: TypeAlias = str | Table | Figure | Sample | Points


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


def drawn(name: str, caption: str, draw: "Callable[[int], Drawing]") -> Figure:
    """Draw a figure at full width and, if it has several panels, in one column for phones."""
    wide = draw(COLUMNS)
    return Figure(name, caption, png(wide), png(draw(1)) if len(wide.axes) > 1 else b"")


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Render the report as Markdown; figures are links to files beside it."""
    parts = [f"# {escaped(title)}"]
    for section in sections:
        parts += [f"## {escaped(section.title)}", *(_markdown_block(block) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def page(title: str, sections: Sequence[Section], findings: Sequence[str] = ()) -> str:
    """Render the report as a self-contained HTML page with inline style and figures; all text is escaped.

    The page begins with room for an opening (`page_parts.with_opening`), the findings, and links to the sections.
    """
    import markupsafe

    start = f"{OPENING}{END_OF_OPENING}\n{findings_list(findings)}{contents([section.title for section in sections])}"
    shown = [(section, anchor(section.title), _can_be_filtered(section)) for section in sections]
    parts = {"start": start, "style": PARTS_STYLE, "filter": FILTER}
    safe = {name: markupsafe.Markup(text) for name, text in parts.items()}  # noqa: S704 - page_parts escapes its texts
    return _environment().get_template(TEMPLATE).render(title=title, sections=shown, **safe)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("synth_assets.reporting"),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "line": _line,
        "answer": _answer,
        "image": _data,
        "kind": lambda block: type(block).__name__,
    }
    return environment


def _can_be_filtered(section: Section) -> bool:
    """Return whether some of the section's samples have one right answer, and some have not."""
    samples = [block for block in section.blocks if isinstance(block, Sample)]
    return any(sample.one_right for sample in samples) and not all(sample.one_right for sample in samples)


def _markdown_block(block: Block) -> str:
    if isinstance(block, str):
        return escaped(block)
    if isinstance(block, Figure):
        return f"![{escaped(block.caption)}]({block.name}.png)"
    if isinstance(block, Points):
        return "\n".join(f"- {escaped(sentence)}" for sentence in block.sentences)
    if isinstance(block, Sample):
        answers = [f"- {escaped(label)}: {escaped(text) or '(nothing)'}" for label, text in block.answers]
        return "\n".join([f"- prompt: {escaped(block.prompt)}", *(f"  {line}" for line in answers)])
    rows = [[*row, *[Cell("")] * (len(block.head) - len(row))] for row in block.rows]
    return table(block.head, rows, numbers=block.numbers, cell=_markdown_cell)


def _markdown_cell(cell: Cell) -> str:
    return f"[{escaped(cell.text)}]({cell.link})" if cell.link else escaped(cell.text)


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _line(text: str) -> str:
    """Return a text on one line, with control characters made visible."""
    return terminal_line(text, MAX_TEXT_CHARACTERS)


def _answer(text: str) -> str:
    """Return a text with its line breaks, with other control characters made visible."""
    lines = text[:MAX_TEXT_CHARACTERS].split("\n") if text.strip() else ["(nothing)"]
    return "\n".join(map(_line, lines)) + ("…" if len(text) > MAX_TEXT_CHARACTERS else "")
