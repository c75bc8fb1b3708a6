"""Rows shown to people: model text as Markdown that cannot act as Markdown, HTML or terminal codes."""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping

SAMPLE_BYTES = 4_000  # an event of Dagster stays under a few kB
CELL_CHARACTERS = 400
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # controls, bidirectional overrides, surrogates
ELLIPSIS = " …"


def escaped_sample(rows: Iterable[Mapping[str, object]], limit_bytes: int = SAMPLE_BYTES) -> str:
    """Rows as Markdown of at most `limit_bytes` bytes, each text cut, and everything in it shown as plain text.

    HTML, images, links and headings lose their meaning; control characters (ANSI codes, NUL, text direction)
    are written as their code points. Rows that no longer fit are left out.
    """
    kept: list[str] = []
    used = 0
    for row in rows:
        entry = "\n".join(f"- {_plain(name)}: {_plain(_cut(str(value)))}" for name, value in row.items())
        size = len(entry.encode()) + 2
        if used + size > limit_bytes:
            break
        kept.append(entry)
        used += size
    return "\n\n".join(kept)


def _cut(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS else text[:CELL_CHARACTERS] + ELLIPSIS


def _plain(text: str) -> str:
    text = text.replace("\n", "⏎")
    visible = "".join(_visible(character) for character in text)
    return html.escape(MARKDOWN.sub(r"\\\1", visible), quote=False)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN_CATEGORIES:
        return character
    return f"<U+{ord(character):04X}>"
