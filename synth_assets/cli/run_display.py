"""Terminal output of a run: a line per result, one moving line with the progress, and a log file with everything."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from synth_assets.cli.terminal import RedactingConsole
from synth_assets.reporting.escaping import terminal_line
from synth_assets.text.redaction import redact

REPORT_EVERY_S = 10.0  # without a terminal
REFRESHES_PER_S = 4
STYLES = {
    "FAILED": "bold red",
    "check failed (ERROR)": "bold red",
    "check failed (WARN)": "yellow",
    "stopped": "yellow",
}
"""Style of a line on a terminal, by its first words after the name of the step."""


class RunDisplay:
    """Prints the lines of a run. Create it with `run_display`."""

    def __init__(self, console: RedactingConsole, log: IO[str], live: Live | None) -> None:
        """Print to `console` and write every line to `log`; `live` is the moving line, None without a terminal."""
        self.console, self.log, self.live = console, log, live
        self.reported = time.monotonic()

    def result(self, line: str) -> None:
        """Print a line that stays, and log it."""
        style = next((style for words, style in STYLES.items() if f"  {words}" in line or f" {words}:" in line), None)
        self.console.print(line, style=style)
        self.detail(line)

    def detail(self, line: str) -> None:
        """Write a line to the log file only."""
        self.log.write(f"{redact(line)}\n")
        self.log.flush()

    def progress(self, make_line: Callable[[], str], elapsed_s: float) -> None:
        """Update the moving line; without a terminal, print a line every REPORT_EVERY_S seconds."""
        if self.live:
            self.live.update(_moving_line(f"{elapsed_s:.0f} s  {make_line()}"))
        elif time.monotonic() - self.reported >= REPORT_EVERY_S:
            self.reported = time.monotonic()
            self.console.print(f"{elapsed_s:5.0f} s  {make_line()}")


@contextmanager
def run_display(console: RedactingConsole, home: Path) -> Iterator[RunDisplay]:
    """Create the log file of a run in SYNTH_HOME/logs, print its path, and yield the display."""
    path = home / "logs" / f"run-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    console.print(f"log      {path}")
    with path.open("w", encoding="utf-8", errors="backslashreplace") as log:
        if not console.is_terminal:
            yield RunDisplay(console, log, None)
            return
        live = Live(_moving_line("starting"), console=console, refresh_per_second=REFRESHES_PER_S, transient=True)
        with live:
            yield RunDisplay(console, log, live)


def _moving_line(text: str) -> Spinner:
    return Spinner("dots", Text(terminal_line(redact(text)), no_wrap=True, overflow="ellipsis", style="dim"))
