"""The terminal that commands write to."""

from typing import Any

from rich.console import Console

from synth_assets.reporting.escaping import terminal_text
from synth_assets.text.redaction import redact


class RedactingConsole(Console):
    """A console that prints text as text: no markup, nothing that acts on the terminal, and no secret."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - whatever rich prints
        """Print like rich, with the control characters of each string as code points and its secrets replaced."""
        shown = [terminal_text(redact(part)) if isinstance(part, str) else part for part in objects]
        super().print(*shown, **{"markup": False, "emoji": False, **options})
