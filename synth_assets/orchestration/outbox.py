"""Notices that wait to be sent: kept in a sensor's cursor until the webhook takes them.

A cursor holds the storage id of the last event seen, and for each event that waits the attempts made and when the next
is due. Events stay in Dagster's event log, so nothing else is stored. A notice is sent at least once: again where the
process ended between the answer of the webhook and the storing of the cursor.
"""

import html
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import dagster as dg

from resources.webhook import VARIABLE, Notice, Webhook, WebhookError
from synth_assets.reporting.escaping import terminal_line
from synth_assets.text.redaction import redact

BACK_OFF_S = (30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)  # after the first, second, ... attempt; then the last
MAX_WAITING = 100  # events in a cursor; further ones stay in the event log until there is room
BUDGET_S = 20.0  # of one tick: a notice that begins within it may take DEADLINE_S more
FIRST_LOOK_BACK_S = 3600.0  # of a sensor that does not know when it was switched on
TEXT_CHARACTERS, FACT_CHARACTERS = 1_000, 2_000
MENTION = re.compile(r"@(?=all\b|channel\b|everyone\b|here\b)")


@dataclass
class Waiting:
    """An event whose notice was not taken yet."""

    attempts: int = 0
    due: float = 0.0


@dataclass
class Outbox:
    """What a cursor holds."""

    after: int | None = None
    waiting: dict[int, Waiting] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None) -> "Outbox":
        """Return the content of a cursor; that of another kind of sensor (an earlier version) gives an empty one."""
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            content = json.loads(cursor or "{}")
            if isinstance(content, int):  # an asset sensor's
                return cls(after=content)
            waiting = {int(event): Waiting(int(n), float(due)) for event, (n, due) in content["waiting"].items()}
            return cls(after=content["after"], waiting=waiting)
        return cls()

    def write(self) -> str:
        """Return the cursor."""
        waiting = {str(event): (entry.attempts, entry.due) for event, entry in self.waiting.items()}
        return json.dumps({"after": self.after, "waiting": waiting})


@dataclass(frozen=True)
class Source:
    """Where notices come from.

    Args:
        newer: events after a storage id (or, where it is None, after a timestamp), oldest first, at most `limit`.
        by_id: the events with these storage ids; one that was deleted is missing.
        notice: the notice of an event.
    """

    newer: Callable[[int | None, float, int], Sequence[dg.EventLogRecord]]
    by_id: Callable[[Sequence[int]], Sequence[dg.EventLogRecord]]
    notice: Callable[[dg.EventLogRecord], Notice]


def deliver(
    context: dg.SensorEvaluationContext,
    webhook: Webhook,
    source: Source,
    clock: Callable[[], float] = time.time,
) -> dg.SkipReason:
    """Send the notices that are due, update the cursor, and return what happened.

    Raises:
        ValueError: the address of the webhook cannot work; the cursor stays, so nothing is lost.
    """
    now = clock()
    outbox = Outbox.read(context.cursor)
    since = now - FIRST_LOOK_BACK_S if context.last_sensor_start_time is None else context.last_sensor_start_time
    room = MAX_WAITING - len(outbox.waiting)
    for record in source.newer(outbox.after, since, room) if room > 0 else ():
        outbox.after = record.storage_id
        if webhook.url:
            outbox.waiting[record.storage_id] = Waiting()
    sent, failure = 0, ""
    if webhook.url:
        webhook.check()
        sent, failure = _send(outbox, webhook, source, clock)
    context.update_cursor(outbox.write())
    if failure:
        context.log.warning(failure)
    return dg.SkipReason(_summary(outbox, webhook, sent, failure, clock()))


def make_notice(event: str, text: str, facts: Mapping[str, str]) -> Notice:
    """Return a notice whose text cannot act in a chat (no mention, link, markup or control code) and holds no secret.

    Args:
        event: the id.
        text: one sentence; cut at TEXT_CHARACTERS.
        facts: cut at FACT_CHARACTERS each.
    """
    line = terminal_line(redact(text), TEXT_CHARACTERS).replace("](", "] (")
    shown = html.escape(MENTION.sub("@\u200b", line), quote=False)
    return Notice(event, shown, {name: terminal_line(redact(value), FACT_CHARACTERS) for name, value in facts.items()})


def _send(outbox: Outbox, webhook: Webhook, source: Source, clock: Callable[[], float]) -> tuple[int, str]:
    """Send what is due, oldest first; return how many were taken and the last failure, empty where there is none."""
    start, sent, failure = clock(), 0, ""
    due = [event for event, entry in outbox.waiting.items() if entry.due <= start]
    records = {record.storage_id: record for record in (source.by_id(due) if due else ())}
    for event in due:
        if event not in records:  # its run was deleted
            del outbox.waiting[event]
            continue
        if clock() - start > BUDGET_S:
            break
        try:
            webhook.send(source.notice(records[event]))
        except WebhookError as error:
            failure = str(error)
            entry = outbox.waiting[event]
            pause = BACK_OFF_S[min(entry.attempts, len(BACK_OFF_S) - 1)]
            entry.attempts, entry.due = entry.attempts + 1, clock() + pause
            if not error.reached:  # the others would fail alike
                for other in due:
                    if other in outbox.waiting:
                        outbox.waiting[other].due = entry.due
                break
        else:
            del outbox.waiting[event]
            sent += 1
    return sent, failure


def _summary(outbox: Outbox, webhook: Webhook, sent: int, failure: str, now: float) -> str:
    if not webhook.url:
        return f"no webhook is set: {VARIABLE}"
    parts = [f"sent {sent} notice{'' if sent == 1 else 's'}"] if sent else []
    if outbox.waiting:
        pause = max(min(entry.due for entry in outbox.waiting.values()) - now, 0.0)
        parts.append(f"{len(outbox.waiting)} wait, next attempt in {pause:.0f} s")
    return "; ".join([*parts, *([failure] if failure else [])]) or "no new event"
