"""Escape model text for Markdown, HTML and terminals."""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping

SAMPLE_BYTES = 4_000  # keeps a Dagster event to a few kB
CELL_BYTES = 600
LINE_CHARACTERS = 200
MARKDOWN = re.compile(r"([\\`*_\[\]~|])")
LINK = re.compile(r":(?=//)|(?<=www)\.|@", re.IGNORECASE)  # parts of a bare address that GitHub links
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # controls, text direction, surrogates
LINE_BREAKS = "\n\t"
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
METADATA_CHARACTERS = 2_000


def escaped_sample(rows: Iterable[Mapping[str, object]], limit_bytes: int = SAMPLE_BYTES) -> str:
    """Render rows as Markdown of at most `limit_bytes` bytes, with every text truncated and escaped.

    HTML, images, links and headings become plain text. Control characters (ANSI codes, NUL, text direction) become
    their code points. Rows that do not fit are omitted.
    """
    entries: list[str] = []
    used = 0
    for row in rows:
        entry = "\n".join(f"- {escaped(name)}: {escaped(str(value))}" for name, value in row.items())
        used += len(entry.encode()) + 2
        if used > limit_bytes:
            break
        entries.append(entry)
    return "\n\n".join(entries)


def escaped(text: str, limit_bytes: int = CELL_BYTES, *, addresses: bool = True) -> str:
    """Escape a text for one line of Markdown of at most `limit_bytes` bytes; a truncated text ends in an ellipsis.

    GitHub's Markdown turns bare addresses into links; `addresses=False` escapes them as well.
    """
    pieces: list[str] = []
    used = 0
    links = set() if addresses else {match.start() for match in LINK.finditer(text[:limit_bytes])}
    for index, character in enumerate(text):
        begins_heading = index == 0 and character == "#"
        piece = f"\\{character}" if begins_heading or index in links else _plain(character)
        used += len(piece.encode())
        if used > limit_bytes:
            return "".join([*pieces, "…"])
        pieces.append(piece)
    return "".join(pieces)


def terminal_line(text: str, limit: int = LINE_CHARACTERS) -> str:
    """Return a text as one terminal line: control characters as code points, truncated with an ellipsis."""
    visible = "".join(_visible(character) for character in text[: limit + 1])
    return visible if len(visible) <= limit and len(text) <= limit else visible[: limit - 1] + "…"


def terminal_text(text: str) -> str:
    """Return a text for a terminal, keeping its line breaks; characters that control a terminal become code points."""
    return "".join(_inert(character) for character in text)


def metadata_line(text: str, limit: int = METADATA_CHARACTERS) -> str:
    """Return a text as one line of asset metadata or of a tag, with control characters as code points."""
    return terminal_line(text, limit)


def storable(text: str) -> str:
    """Return a text that UTF-8 can encode: lone surrogates, as in undecodable command arguments, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def first_sections(card: str) -> str:
    """Return a model card without its YAML header, up to the last whole section that fits an event."""
    body = card.partition("---\n")[2].partition("---\n")[2].strip()
    if len(body.encode()) <= SAMPLE_BYTES:
        return body
    sections = body.encode()[:SAMPLE_BYTES].decode(errors="ignore").split("\n## ")
    return "\n## ".join(sections[:-1] or sections)


def _inert(character: str) -> str:
    is_control = unicodedata.category(character) in ("Cc", "Cs") or character in BIDIRECTIONAL
    return f"<U+{ord(character):04X}>" if is_control and character not in LINE_BREAKS else character


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    return f"<U+{ord(character):04X}>" if unicodedata.category(character) in HIDDEN_CATEGORIES else character


def _plain(character: str) -> str:
    return html.escape(MARKDOWN.sub(r"\\\1", _visible(character)), quote=False)
