"""Format errors for the terminal as one line, and log the tracebacks of unexpected ones."""

import os
import traceback
from datetime import UTC, datetime
from pathlib import Path

from resources.deployment import home_folder
from synth_assets.orchestration.failures import causes, is_no_space, one_line, raised_in
from synth_assets.text.redaction import cause_of, redact

EXPECTED_ERRORS = (ValueError, OSError, RuntimeError)
UNEXPECTED_ERRORS = (NotImplementedError, RecursionError)  # subclasses of RuntimeError
LIBRARIES = (
    "alembic",
    "dagster",
    "dagster_shared",
    "filelock",
    "huggingface_hub",
    "mlflow",
    "polars",
    "sqlalchemy",
    "yaml",
)
"""Packages whose errors come from the user's input, files or set-up rather than from a bug."""

LOG = Path("logs") / "errors.log"


def error_line(error: BaseException) -> str:
    """Return one line for the error that ended a command, with the remedy if there is one.

    The traceback of an unexpected error is appended to a log file.
    """
    if is_no_space(error):
        return redact(one_line(_no_space(error)))
    package = type(error).__module__.partition(".")[0]
    if package == "sqlalchemy":
        return redact(one_line(_database(error)))
    if isinstance(error, EXPECTED_ERRORS) and not isinstance(error, UNEXPECTED_ERRORS) and str(error).strip():
        return redact(one_line(str(error)))
    if package in LIBRARIES:
        return redact(one_line(f"{type(error).__name__}: {error}"))
    text = redact(one_line(f"{type(error).__name__}: {error}"))
    return f"unexpected error, please report it: {text}, raised in {raised_in(error)}{_log_traceback(error)}"


def _no_space(error: BaseException) -> str:
    file = next((str(e) for e in causes(error) if isinstance(e, OSError) and "written for" in str(e)), "")
    detail = f" ({file})" if file else ""
    return (
        f"no space left on the disk of SYNTH_HOME {home_folder()}{detail}. Free some space, or copy the folder to a "
        "larger disk and set SYNTH_HOME; then run again to resume"
    )


def _database(error: BaseException) -> str:
    reason = getattr(error, "orig", None) or cause_of(error)
    return (
        f"a database in SYNTH_HOME {home_folder()} is not usable ({reason}). Check that no other process locks it and "
        "that its files are writable, or restore them from a backup"
    )


def _log_traceback(error: BaseException) -> str:
    """Append the traceback to the log file; return a note with its path, empty if the file is not writable."""
    log = home_folder() / LOG
    lines = "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()}\n{redact(lines)}\n")
    except OSError:
        return ""
    return f"; the traceback is in {log}"
