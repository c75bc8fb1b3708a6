"""Console output without markup, control characters and secrets."""

from typing import Any

from rich.console import Console

from synth_assets.reporting.escaping import terminal_text
from synth_assets.text.redaction import redact


class RedactingConsole(Console):
    """A rich console that prints strings literally, escapes control characters and redacts secrets."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - any renderable
        """Print as rich does, with control characters shown as code points and secrets redacted."""
        escaped = [terminal_text(redact(part)) if isinstance(part, str) else part for part in objects]
        super().print(*escaped, **{"markup": False, "emoji": False, **options})
