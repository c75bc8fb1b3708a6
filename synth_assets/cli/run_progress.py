"""Progress of a run: assets done, rate of the running steps, and the time left for the whole run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dagster import DagsterEventType, EventLogEntry

from synth_assets.storage.budgets import MINUTE_S

PROGRESS = re.compile(
    r"(?P<done>[\d,]+) of (?P<total>[\d,]+)"
    r"(?:(?P<metrics>.*?), (?P<rate>[\d,.]+(?: \w+)?/s), (?P<left>[\d,]+) s left)?$"
)
"""The end of a progress line of a block computation or a training: rate and time left follow after the first block."""
ENDED = (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_SKIPPED)
PLANNED = (DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED)
HOUR_S = 60 * MINUTE_S
SHORT_S = 10
MIN_BASIS_S = 5.0  # of ended steps, before their pace counts


@dataclass(frozen=True)
class Forecast:
    """Expected duration of a run.

    Attributes:
        seconds: duration of the whole run; None if no run has been measured.
        steps: duration of each step in seconds; empty if no run of this deployment has been measured.
        parallel: average number of steps that run at once.
    """

    seconds: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    parallel: float = 1.0


@dataclass
class RunningStep:
    """A step that has started and not ended, with its last progress. Times are seconds since the epoch."""

    started: float
    progress: str = ""
    reported: float = 0.0
    left_s: float | None = None

    def seconds_left(self, now: float) -> float:
        """Return the seconds left of the work that the step reports; 0 if it reported none."""
        return max((self.left_s or 0.0) - (now - self.reported), 0.0)


def is_progress(message: str) -> bool:
    """Return True if a log message reports progress inside a step."""
    return PROGRESS.search(message) is not None


class RunProgress:
    """The state of a run, from its events."""

    def __init__(self, forecast: Forecast, started: float) -> None:
        """Expect `forecast` for a run that started at `started`, in seconds since the epoch."""
        self.forecast, self.started = forecast, started
        self.has_started = False
        self.assets: set[str] = set()
        self.done: set[str] = set()
        self.waiting: set[str] = set()  # planned steps that have not started
        self.running: dict[str, RunningStep] = {}
        self.ended_s = self.expected_s = 0.0  # actual and expected seconds of the ended steps

    def add(self, entry: EventLogEntry) -> None:
        """Update the state with an event or a log message of the run."""
        step, event = entry.step_key, entry.dagster_event
        if event is None:
            if step in self.running and (match := PROGRESS.search(entry.user_message)):
                self._report(self.running[step], entry, match)
            return
        if event.event_type in PLANNED and step:
            self.waiting.add(step)
        if event.event_type is DagsterEventType.ASSET_MATERIALIZATION_PLANNED and event.asset_key:
            self.assets.add(event.asset_key.to_user_string())
        elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
            self.done.add(event.asset_key.to_user_string())
        elif event.event_type is DagsterEventType.STEP_START and step:
            self.waiting.discard(step)
            self.has_started = True
            self.running[step] = RunningStep(entry.timestamp)
        elif event.event_type in ENDED and step:
            self._end(step, entry.timestamp)

    def _end(self, name: str, at: float) -> None:
        self.waiting.discard(name)
        step = self.running.pop(name, None)
        if step is not None and name in self.forecast.steps:
            self.ended_s += at - step.started
            self.expected_s += self.forecast.steps[name]

    def _pace(self) -> float:
        """Return how many times longer than expected the ended steps took, at least 1: on a busy machine, more."""
        return max(self.ended_s / self.expected_s, 1.0) if self.expected_s >= MIN_BASIS_S else 1.0

    def _rest_of(self, name: str, step: RunningStep, now: float) -> float:
        """Return the seconds left of a running step. One that outlasts its expectation is past three quarters."""
        ran = now - step.started
        rest = self.forecast.steps.get(name, 0.0) * self._pace() - ran
        return max(rest if rest > 0 else ran / 3, step.seconds_left(now))

    def _report(self, step: RunningStep, entry: EventLogEntry, match: re.Match[str]) -> None:
        text = entry.user_message.removeprefix(f"{entry.step_key}: ")
        what = text[: match.start() - (len(entry.user_message) - len(text))].rstrip(": ")
        rate = f", {match['rate']}" if match["rate"] else ""
        step.progress = f"{what} {match['done']} of {match['total']}{rate}"
        step.reported = entry.timestamp
        step.left_s = float(match["left"].replace(",", "")) if match["left"] else None

    def seconds_left(self, now: float) -> float | None:
        """Return the expected seconds until the run ends; None if no run has been measured.

        A step takes as long as in the earlier run times the pace of this run, or as long as it reports if that is more.
        """
        reported = max((step.seconds_left(now) for step in self.running.values()), default=0.0)
        expected = self.forecast.steps
        if not expected:
            return (
                None if self.forecast.seconds is None else max(self.forecast.seconds - (now - self.started), reported)
            )
        rest = sum(expected.get(step, 0.0) for step in self.waiting) * self._pace()
        rest += sum(self._rest_of(name, step, now) for name, step in self.running.items())
        return max(rest / self.forecast.parallel, reported)

    def line(self, now: float) -> str:
        """Return the state as one line: assets done, the time left, and the running step with its rate."""
        if not self.has_started:
            return "starting"
        state = f"{len(self.done)} of {len(self.assets)} assets, {self._rest(now)}"
        return ": ".join(filter(None, [state, self._running(now)]))

    def _rest(self, now: float) -> str:
        left = self.seconds_left(now)
        if left is None:
            return "time left unknown before the first complete run"
        return f"about {duration(left)} left" if left >= SHORT_S else "a few seconds left"

    def _running(self, now: float) -> str:
        """Describe the running step that reports the most time left, or else the one that started first."""
        if not self.running:
            return ""
        name, step = max(self.running.items(), key=lambda item: (item[1].seconds_left(now), -item[1].started))
        text = step.progress or f"for {duration(now - step.started)}"
        return f"{name.removesuffix('_expectations')} {text}"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it: "40 s", "12 min", "2 h 5 min"."""
    if seconds < 1.5 * MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    return f"{seconds // HOUR_S:.0f} h {seconds % HOUR_S // MINUTE_S:.0f} min"
