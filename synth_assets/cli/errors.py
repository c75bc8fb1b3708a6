"""The line that the terminal shows for an error, and the file that keeps its traceback."""

import os
import traceback
from datetime import UTC, datetime
from pathlib import Path

from resources.deployment import home_folder
from synth_assets.orchestration.failures import causes, is_no_space, one_line, raised_in
from synth_assets.text.redaction import redact

EXPECTED = (ValueError, OSError, RuntimeError)
DEFECTS = (NotImplementedError, RecursionError)  # also RuntimeErrors
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
"""Packages whose errors are about the user's input, files or set-up, and not about our code."""

LOG = Path("logs") / "errors.log"


def error_line(error: BaseException) -> str:
    """Return one line for an error that ends a command: what was expected, what came, and the remedy.

    The traceback of a defect of our own goes to a log file.
    """
    if is_no_space(error):
        return redact(one_line(_no_space(error)))
    package = type(error).__module__.partition(".")[0]
    if package == "sqlalchemy":
        return redact(one_line(_database(error)))
    if isinstance(error, EXPECTED) and not isinstance(error, DEFECTS) and str(error).strip():
        return redact(one_line(str(error)))
    if package in LIBRARIES:
        return redact(one_line(f"{type(error).__name__}: {error}"))
    text = redact(one_line(f"{type(error).__name__}: {error}"))
    return f"a defect of synth-assets, please report it: {text}, raised in {raised_in(error)}{_kept(error)}"


def _no_space(error: BaseException) -> str:
    place = next((str(e) for e in causes(error) if isinstance(e, OSError) and "written for" in str(e)), "")
    detail = f" ({place})" if place else ""
    return (
        f"no space left on the disk of SYNTH_HOME {home_folder()}{detail}: free some, or copy the folder to a larger "
        "disk and set SYNTH_HOME; run again to go on"
    )


def _database(error: BaseException) -> str:
    reason = getattr(error, "orig", None) or str(error).splitlines()[0]
    return (
        f"a database under SYNTH_HOME {home_folder()} cannot be used ({reason}): see that no other process locks it "
        "and that its files can be written, or restore them from a backup"
    )


def _kept(error: BaseException) -> str:
    """Return where the traceback was written; empty where it could not be."""
    log = home_folder() / LOG
    lines = "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()}\n{redact(lines)}\n")
    except OSError:
        return ""
    return f"; the traceback is in {log}"
