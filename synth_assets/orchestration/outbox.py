"""Outbox for webhook notices with retries and at-least-once delivery. Its state is the cursor of a sensor.

The cursor holds the storage id of the last event, and for each pending event the number of attempts and the time of the
next one. The events stay in Dagster's event log. A notice is sent again if the process exits between the response of
the webhook and the update of the cursor.
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

BACK_OFF_S = (30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)  # after attempt 1, 2, ...; the last value repeats
MAX_PENDING = 100  # events in a cursor; later events wait in the event log
BUDGET_S = 20.0  # per tick; the last notice may take DEADLINE_S more
FIRST_LOOK_BACK_S = 3600.0  # if the start time of the sensor is unknown
MAX_TEXT_CHARACTERS, MAX_FACT_CHARACTERS = 1_000, 2_000
MENTION = re.compile(r"@(?=all\b|channel\b|everyone\b|here\b)")


@dataclass
class PendingNotice:
    """An event whose notice has not been delivered."""

    attempts: int = 0
    due: float = 0.0


@dataclass
class Outbox:
    """Contents of a cursor."""

    after: int | None = None
    pending: dict[int, PendingNotice] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None) -> "Outbox":
        """Parse a cursor. The cursor of another kind of sensor (an earlier version) gives an empty outbox."""
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            content = json.loads(cursor or "{}")
            if isinstance(content, int):  # the cursor of an asset sensor
                return cls(after=content)
            pending = {int(event): PendingNotice(int(n), float(due)) for event, (n, due) in content["waiting"].items()}
            return cls(after=content["after"], pending=pending)
        return cls()

    def write(self) -> str:
        """Serialise the cursor."""
        pending = {str(event): (entry.attempts, entry.due) for event, entry in self.pending.items()}
        return json.dumps({"after": self.after, "waiting": pending})


@dataclass(frozen=True)
class Source:
    """Source of the events of an outbox.

    Args:
        newer: returns the events after a storage id, or after a timestamp if it is None, oldest first, at most `limit`.
        by_id: returns the events with these storage ids, without deleted ones.
        notice: returns the notice for an event.
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
    """Send the notices that are due, update the cursor, and return a summary.

    Raises:
        ValueError: the address of the webhook is invalid. The cursor is unchanged, so no notice is lost.
    """
    now = clock()
    outbox = Outbox.read(context.cursor)
    since = now - FIRST_LOOK_BACK_S if context.last_sensor_start_time is None else context.last_sensor_start_time
    room = MAX_PENDING - len(outbox.pending)
    for record in source.newer(outbox.after, since, room) if room > 0 else ():
        outbox.after = record.storage_id
        if webhook.url:
            outbox.pending[record.storage_id] = PendingNotice()
    sent, failure = 0, ""
    if webhook.url:
        webhook.check()
        sent, failure = _send(outbox, webhook, source, clock)
    context.update_cursor(outbox.write())
    if failure:
        context.log.warning(failure)
    return dg.SkipReason(_summary(outbox, webhook, sent, failure, clock()))


def make_notice(event: str, text: str, facts: Mapping[str, str]) -> Notice:
    """Return a notice that is safe to show in a chat: no mentions, links, markup, control codes or secrets.

    Args:
        event: id of the notice.
        text: one sentence, truncated to MAX_TEXT_CHARACTERS.
        facts: values, each truncated to MAX_FACT_CHARACTERS.
    """
    line = terminal_line(redact(text), MAX_TEXT_CHARACTERS).replace("](", "] (")
    escaped = html.escape(MENTION.sub("@\u200b", line), quote=False)
    return Notice(
        event, escaped, {name: terminal_line(redact(value), MAX_FACT_CHARACTERS) for name, value in facts.items()}
    )


def _send(outbox: Outbox, webhook: Webhook, source: Source, clock: Callable[[], float]) -> tuple[int, str]:
    """Send the due notices, oldest first; return the number delivered and the last failure, empty if none."""
    start, sent, failure = clock(), 0, ""
    due = [event for event, entry in outbox.pending.items() if entry.due <= start]
    records = {record.storage_id: record for record in (source.by_id(due) if due else ())}
    for event in due:
        if event not in records:  # its run was deleted
            del outbox.pending[event]
            continue
        if clock() - start > BUDGET_S:
            break
        try:
            webhook.send(source.notice(records[event]))
        except WebhookError as error:
            failure = str(error)
            entry = outbox.pending[event]
            pause = BACK_OFF_S[min(entry.attempts, len(BACK_OFF_S) - 1)]
            entry.attempts, entry.due = entry.attempts + 1, clock() + pause
            if not error.reached:  # the server is down, so the others would fail too
                for other in due:
                    if other in outbox.pending:
                        outbox.pending[other].due = entry.due
                break
        else:
            del outbox.pending[event]
            sent += 1
    return sent, failure


def _summary(outbox: Outbox, webhook: Webhook, sent: int, failure: str, now: float) -> str:
    if not webhook.url:
        return f"no webhook: set {VARIABLE}"
    parts = [f"sent {sent} notice{'' if sent == 1 else 's'}"] if sent else []
    if outbox.pending:
        pause = max(min(entry.due for entry in outbox.pending.values()) - now, 0.0)
        parts.append(f"{len(outbox.pending)} pending, next attempt in {pause:.0f} s")
    return "; ".join([*parts, *([failure] if failure else [])]) or "no new event"
