"""Rows shown to people: model text as Markdown that cannot act as Markdown, HTML or terminal codes."""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping

SAMPLE_BYTES = 4_000  # an event of Dagster stays under a few kB
CELL_BYTES = 600
LINE_CHARACTERS = 200
MARKDOWN = re.compile(r"([\\`*_\[\]~|])")
LINK = re.compile(r":(?=//)|(?<=www)\.|@", re.IGNORECASE)  # what makes a link of a bare address
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # controls, text direction, surrogates
LINE_BREAKS = "\n\t"
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
METADATA_CHARACTERS = 2_000


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


def escaped(text: str, limit_bytes: int = CELL_BYTES, *, addresses: bool = True) -> str:
    """A text on one line, escaped as in `escaped_sample`, of at most `limit_bytes`; an ellipsis where it was cut.

    A bare address in it becomes a link where Markdown is read as GitHub does, unless `addresses` is False.
    """
    shown: list[str] = []
    used = 0
    links = set() if addresses else {match.start() for match in LINK.finditer(text[:limit_bytes])}
    for index, character in enumerate(text):
        begins_heading = index == 0 and character == "#"
        piece = f"\\{character}" if begins_heading or index in links else _plain(character)
        used += len(piece.encode())
        if used > limit_bytes:
            return "".join([*shown, "…"])
        shown.append(piece)
    return "".join(shown)


def terminal_line(text: str, limit: int = LINE_CHARACTERS) -> str:
    """A text on one line of a terminal, control characters as code points; an ellipsis where it was cut."""
    shown = "".join(_visible(character) for character in text[: limit + 1])
    return shown if len(shown) <= limit and len(text) <= limit else shown[: limit - 1] + "…"


def terminal_text(text: str) -> str:
    """A text of several lines for a terminal: its lines stay, codes that act on a terminal become code points."""
    return "".join(_inert(character) for character in text)


def metadata_line(text: str, limit: int = METADATA_CHARACTERS) -> str:
    """A text as metadata of an asset or as a tag: one line of plain text, control characters as code points."""
    return terminal_line(text, limit)


def storable(text: str) -> str:
    """A text that UTF-8 can hold: lone surrogates, as undecodable arguments of a command leave them, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def first_sections(card: str) -> str:
    """A card in the hub's format without its header, up to the last whole section that an event may hold."""
    body = card.partition("---\n")[2].partition("---\n")[2].strip()
    if len(body.encode()) <= SAMPLE_BYTES:
        return body
    sections = body.encode()[:SAMPLE_BYTES].decode(errors="ignore").split("\n## ")
    return "\n## ".join(sections[:-1] or sections)


def _inert(character: str) -> str:
    acts = unicodedata.category(character) in ("Cc", "Cs") or character in BIDIRECTIONAL
    return f"<U+{ord(character):04X}>" if acts and character not in LINE_BREAKS else character


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    return f"<U+{ord(character):04X}>" if unicodedata.category(character) in HIDDEN_CATEGORIES else character


def _plain(character: str) -> str:
    return html.escape(MARKDOWN.sub(r"\\\1", _visible(character)), quote=False)
