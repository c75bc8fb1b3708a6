"""Format the error of a step as one line: prefer the message of the project's own code in the chain of causes."""

import errno
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence

from dagster import DagsterEventType, DagsterInstance
from dagster_shared.error import SerializableErrorInfo

from resources.deployment import PROJECT
from synth_assets.text.redaction import redact

PACKAGES = ("synth_assets", "resources", "checks")
FRAMEWORK = ("dagster", "dagster_shared", "dagster_graphql", "dagster_pipes")
PROJECT_FILE = re.compile("|".join(re.escape(f'File "{PROJECT / package}') + r"[\\/]" for package in PACKAGES))
TYPE = re.compile(r"^(?P<module>(?:[\w<>]+\.)*)(?P<name>\w+)(?:: |:\n|$)")
FAILED = "step failed: "  # prefix of the log line of a failed step
MAX_LINE_CHARACTERS = 1_000
NO_SPACE_MESSAGES = ("No space left on device", "database or disk is full", "(os error 28)", "disk I/O error")


def failure_text(error: SerializableErrorInfo | None) -> str:
    """Return one line for the error of a step.

    Selects the outermost error in the chain of causes that has a type of this project or was raised in its code: its
    message names file, line and remedy. Without one, selects the outermost error that is not Dagster's.
    """
    chain = list(_chain(error))
    selected = next((e for e in chain if _is_project_error(e)), None) or next(
        (e for e in chain if not _is_framework(e)), None
    )
    if selected is None:
        return one_line(redact(chain[0].message)) if chain else "no error was recorded"
    return one_line(redact(_without_type(selected)))


def failures_of_run(instance: DagsterInstance, run_id: str) -> list[str]:
    """Return a line with name and error for each failed step of a run, in order."""
    entries = instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    return [f"{event.step_key}: {failure_text(event.step_failure_data.error)}" for event in events]


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, truncated to MAX_LINE_CHARACTERS."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text).split())
    return line if len(line) <= MAX_LINE_CHARACTERS else f"{line[: MAX_LINE_CHARACTERS - 3]}..."


def is_no_space(error: BaseException | None) -> bool:
    """Return True if an error or one of its causes reports a full disk."""
    return any(
        (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
        or any(message in str(cause) for message in NO_SPACE_MESSAGES)
        for cause in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its chain of causes and contexts, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def raised_in(error: BaseException) -> str:
    """Return the file and line where an error was raised."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "an unknown location"


def _chain(error: SerializableErrorInfo | None) -> Iterable[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause or error.context


def _is_project_error(error: SerializableErrorInfo) -> bool:
    module = _type(error)[0].partition(".")[0]
    return module in PACKAGES or bool(error.stack and PROJECT_FILE.search(error.stack[-1]))


def _is_framework(error: SerializableErrorInfo) -> bool:
    return _type(error)[0].partition(".")[0] in FRAMEWORK


def _type(error: SerializableErrorInfo) -> tuple[str, str]:
    match = TYPE.match(error.message)
    return (match["module"], match["name"]) if match else ("", "")


def _without_type(error: SerializableErrorInfo) -> str:
    """Return the message without the type, unless the type is needed to understand it, as in `KeyError: 'x'`."""
    module, name = _type(error)
    rest = error.message.removeprefix(f"{module}{name}").removeprefix(":").strip()
    is_clear = module.partition(".")[0] in PACKAGES or name in ("ValueError", "OSError", "RuntimeError", "Failure")
    return rest if is_clear and rest else error.message
