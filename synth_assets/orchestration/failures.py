"""What to show of an error: the sentence that our own code wrote, on one line."""

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
OWN_FILE = re.compile("|".join(re.escape(f'File "{PROJECT / package}') + r"[\\/]" for package in PACKAGES))
TYPE = re.compile(r"^(?P<module>(?:[\w<>]+\.)*)(?P<name>\w+)(?:: |:\n|$)")
FAILED = "step failed: "  # begins the log line of a failed step
LINE_CHARACTERS = 1_000
NO_SPACE = ("No space left on device", "database or disk is full", "(os error 28)", "disk I/O error")


def failure_text(error: SerializableErrorInfo | None) -> str:
    """Return one line for the error of a step.

    From the outside of the chain of causes it is the first error that is of a type of ours or was raised in our code,
    which names file, line and remedy; where there is none, the outermost error that is not one of Dagster's.
    """
    chain = list(_chain(error))
    chosen = next((e for e in chain if _is_ours(e)), None) or next((e for e in chain if not _is_framework(e)), None)
    if chosen is None:
        return one_line(redact(chain[0].message)) if chain else "no error was recorded"
    return one_line(redact(_without_type(chosen)))


def failures_of_run(instance: DagsterInstance, run_id: str) -> list[str]:
    """Return for each failed step of a run its name and the line that `failure_text` gives, in their order."""
    entries = instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    return [f"{event.step_key}: {failure_text(event.step_failure_data.error)}" for event in events]


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, cut to a length that a terminal shows."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text).split())
    return line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 3]}..."


def is_no_space(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that the disk is full."""
    return any(
        (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
        or any(words in str(each) for words in NO_SPACE)
        for each in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error, then what caused it or was being handled, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def raised_in(error: BaseException) -> str:
    """Return the file and line where an error was raised, for a report of a defect."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "an unknown place"


def _chain(error: SerializableErrorInfo | None) -> Iterable[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause or error.context


def _is_ours(error: SerializableErrorInfo) -> bool:
    module = _type(error)[0].partition(".")[0]
    return module in PACKAGES or bool(error.stack and OWN_FILE.search(error.stack[-1]))


def _is_framework(error: SerializableErrorInfo) -> bool:
    return _type(error)[0].partition(".")[0] in FRAMEWORK


def _type(error: SerializableErrorInfo) -> tuple[str, str]:
    found = TYPE.match(error.message)
    return (found["module"], found["name"]) if found else ("", "")


def _without_type(error: SerializableErrorInfo) -> str:
    """Return the message; the name of the type stays where it says more than the sentence, as in `KeyError: 'x'`."""
    module, name = _type(error)
    rest = error.message.removeprefix(f"{module}{name}").removeprefix(":").strip()
    own = module.partition(".")[0] in PACKAGES or name in ("ValueError", "OSError", "RuntimeError", "Failure")
    return rest if own and rest else error.message
