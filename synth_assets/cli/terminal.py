"""Console output without markup, control characters and secrets, wrapped between words on a terminal."""

import re
import textwrap
from typing import Any

from rich.console import Console

from synth_assets.reporting.escaping import terminal_text
from synth_assets.text.redaction import redact

COLUMN = re.compile(r"(?<=\S) {2,}(?=\S)")
INDENT = 4  # of a continued line without columns, in addition to its own


class RedactingConsole(Console):
    """A rich console that prints strings literally, escapes control characters and redacts secrets.

    On a terminal it wraps lines between words; in a pipe or file it leaves each line whole, for programs that read it.
    """

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - any renderable
        """Print as rich does, with control characters shown as code points and secrets redacted."""
        escaped = [terminal_text(redact(part)) if isinstance(part, str) else part for part in objects]
        if self.is_terminal:
            escaped = [wrapped(part, self.width) if isinstance(part, str) else part for part in escaped]
        super().print(*escaped, **{"markup": False, "emoji": False, **options})


def wrapped(text: str, width: int) -> str:
    """Break the lines of a text that are longer than `width` between words; longer words stay whole.

    A continued line is indented to the last column of its line: the text after two or more spaces.
    """
    return "\n".join(_wrapped_line(line, width) if len(line) > width else line for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    columns = [match.end() for match in COLUMN.finditer(line) if match.end() <= width // 2]
    indent = columns[-1] if columns else min(len(line) - len(line.lstrip()) + INDENT, width // 2)
    if " " not in line[indent:].strip():  # a path
        return line
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )
