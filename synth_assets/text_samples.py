"""Rows shown to people: model text as Markdown that cannot act as Markdown, HTML or terminal codes."""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping

SAMPLE_BYTES = 4_000  # an event of Dagster stays under a few kB
CELL_BYTES = 600
LINE_CHARACTERS = 200
MARKDOWN = re.compile(r"([\\`*_\[\]~|])")
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # controls, bidirectional overrides, surrogates


def escaped_sample(rows: Iterable[Mapping[str, object]], limit_bytes: int = SAMPLE_BYTES) -> str:
    """Rows as Markdown of at most `limit_bytes` bytes, each text cut, and everything in it shown as plain text.

    HTML, images, links and headings lose their meaning; control characters (ANSI codes, NUL, text direction)
    are written as their code points. Rows that no longer fit are left out.
    """
    kept: list[str] = []
    used = 0
    for row in rows:
        entry = "\n".join(f"- {escaped(name)}: {escaped(str(value))}" for name, value in row.items())
        used += len(entry.encode()) + 2
        if used > limit_bytes:
            break
        kept.append(entry)
    return "\n\n".join(kept)


def escaped(text: str) -> str:
    """A text on one line, escaped as in `escaped_sample`, at most CELL_BYTES long; an ellipsis where it was cut."""
    shown: list[str] = []
    used = 0
    for character in text:
        piece = _plain(character)
        used += len(piece.encode())
        if used > CELL_BYTES:
            return "".join([*shown, "…"])
        shown.append(piece)
    return "".join(shown)


def terminal_line(text: str, limit: int = LINE_CHARACTERS) -> str:
    """A text on one line of a terminal, control characters as code points; an ellipsis where it was cut."""
    shown = "".join(_visible(character) for character in text[: limit + 1])
    return shown if len(shown) <= limit and len(text) <= limit else shown[: limit - 1] + "…"


def first_sections(card: str) -> str:
    """A card in the hub's format without its header, up to the last whole section that an event may hold."""
    body = card.partition("---\n")[2].partition("---\n")[2].strip()
    if len(body.encode()) <= SAMPLE_BYTES:
        return body
    sections = body.encode()[:SAMPLE_BYTES].decode(errors="ignore").split("\n## ")
    return "\n## ".join(sections[:-1] or sections)


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    return f"<U+{ord(character):04X}>" if unicodedata.category(character) in HIDDEN_CATEGORIES else character


def _plain(character: str) -> str:
    return html.escape(MARKDOWN.sub(r"\\\1", _visible(character)), quote=False)
