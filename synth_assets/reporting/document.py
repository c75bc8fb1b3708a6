"""Render a report as Markdown and as a self-contained HTML page."""

import html
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
    from matplotlib.figure import Figure as Drawing

MAX_TEXT_CHARACTERS = 2_000  # longer answers are truncated
PHONE = "(max-width: 40rem)"
STYLE = """
:root { color-scheme: light dark; --ink: #23272e; --soft: #5b6470; --line: #d9dce1; --page: #fff; --head: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #a2abb6; --line: #3a4049; --page: #16191d; --head: #22262c; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .15em; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { background: var(--head); font-weight: 600; }
td.number, th.number { text-align: right; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .3rem; }
.sample { border: 1px solid var(--line); border-radius: 4px; margin: .8rem 0; padding: .7rem .9rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .8rem 1.5rem; }
.sample p { margin: .2rem 0 .6rem; white-space: pre-wrap; }
ul { padding-left: 1.2rem; }
li { margin: .3rem 0; }
td[colspan] { color: #b3261e; white-space: normal; }
@media (max-width: 40rem) {
  th, td { padding: .3rem .45rem; }
  table { font-size: .82rem; }
  td:first-child { white-space: normal; }
  figure img { width: 100%; }
}
.sample b { color: var(--soft); font-size: .85rem; font-weight: 600; }
"""


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
    body = "\n".join(map(_html_section, sections))
    start = f"{OPENING}{END_OF_OPENING}\n{findings_list(findings)}{contents([section.title for section in sections])}"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}{PARTS_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{_text(title)}</h1>\n{start}{body}\n</main>\n</body>\n</html>\n"
    )


def _html_section(section: Section) -> str:
    samples = [block for block in section.blocks if isinstance(block, Sample)]
    can_be_filtered = any(sample.one_right for sample in samples) and not all(sample.one_right for sample in samples)
    blocks = "".join(map(_html_block, section.blocks))
    heading = f'<h2 id="{anchor(section.title)}">{_text(section.title)}</h2>'
    return f"<section>\n{heading}\n{FILTER if can_be_filtered else ''}{blocks}</section>"


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


def _html_block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>\n"
    if isinstance(block, Figure):
        caption = _text(block.caption)
        narrow = f'<source media="{PHONE}" srcset="{_data(block.narrow)}">' if block.narrow else ""
        picture = f'<picture>{narrow}<img src="{_data(block.png)}" alt="{caption}"></picture>'
        return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>\n"
    if isinstance(block, Points):
        return f"<ul>\n{''.join(f'<li>{_text(sentence)}</li>' for sentence in block.sentences)}</ul>\n"
    if isinstance(block, Sample):
        columns = "".join(f"<div><b>{_text(label)}</b><p>{_answer(text)}</p></div>" for label, text in block.answers)
        prompt = f"<b>prompt</b><p>{_answer(block.prompt)}</p>"
        kind = "sample one-right" if block.one_right else "sample"
        return f'<div class="{kind}">{prompt}<div class="answers">{columns}</div></div>\n'
    return _html_table(block)


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _html_table(table: Table) -> str:
    head = "".join(f"<th{_side(table, name)}>{_text(name)}</th>" for name in table.head)
    rows = []
    for row in table.rows:
        *cells, last = zip(table.head, row, strict=False)
        span = f' colspan="{len(table.head) - len(cells)}"' if len(row) < len(table.head) else _side(table, last[0])
        leading = "".join(f"<td{_side(table, name)}>{_html_cell(cell)}</td>" for name, cell in cells)
        rows.append(f"{leading}<td{span}>{_html_cell(last[1])}</td>")
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n'


def _side(table: Table, name: str) -> str:
    return ' class="number"' if name in table.numbers else ""


def _html_cell(cell: Cell) -> str:
    text = _text(cell.text)
    return f'<a href="{html.escape(cell.link)}">{text}</a>' if cell.link else text


def _text(text: str) -> str:
    """Escape a text for HTML, on one line, with control characters made visible."""
    return html.escape(terminal_line(text, MAX_TEXT_CHARACTERS))


def _answer(text: str) -> str:
    """Escape a text for HTML, keeping its line breaks."""
    lines = text[:MAX_TEXT_CHARACTERS].split("\n") if text.strip() else ["(nothing)"]
    return "\n".join(map(_text, lines)) + ("…" if len(text) > MAX_TEXT_CHARACTERS else "")
