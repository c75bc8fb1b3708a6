"""Parallel processes: limit, failures, restarts of killed processes, and signals."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

import pytest

from synth_assets.cli.execution import StoppedError
from synth_assets.cli.workers import run_each

WORK: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
    "sleeps": (time.sleep, (0.3,)),
    "works": (sys.exit, (0,)),
    "fails": (sys.exit, (1,)),
    "dies": (signal.raise_signal, (signal.SIGKILL,)),
    "never ends": (time.sleep, (60.0,)),
}
CONTEXT = multiprocessing.get_context("forkserver")


class Recorder:
    """Starts processes and records their exit codes and restarts."""

    def __init__(self) -> None:
        self.started: list[BaseProcess] = []
        self.max_running = 0
        self.codes: dict[str, int] = {}
        self.restarts = 0

    def run(self, *names: str, at_once: int = 2) -> None:
        run_each(names, self.start, at_once, self.codes.__setitem__, self.count_restart)

    def start(self, name: str) -> BaseProcess:
        target, arguments = WORK[name.partition(":")[0]]
        process = CONTEXT.Process(target=target, args=arguments)
        process.start()
        self.started.append(process)
        self.max_running = max(self.max_running, sum(p.is_alive() for p in self.started))
        return process

    def count_restart(self) -> None:
        self.restarts += 1


def test_all_run_within_the_limit() -> None:
    recorder = Recorder()
    recorder.run("sleeps:1", "sleeps:2", "sleeps:3", "works", at_once=2)
    assert recorder.codes == {"sleeps:1": 0, "sleeps:2": 0, "sleeps:3": 0, "works": 0}
    assert recorder.max_running <= 2


def test_a_failure_does_not_stop_the_others() -> None:
    recorder = Recorder()
    recorder.run("fails", "works", at_once=1)
    assert recorder.codes == {"fails": 1, "works": 0}
    assert len(recorder.started) == 2


def test_a_killed_process_is_restarted_once() -> None:
    recorder = Recorder()
    recorder.run("dies", "works", at_once=1)
    assert recorder.codes == {"works": 0, "dies": -signal.SIGKILL}
    assert (len(recorder.started), recorder.restarts) == (3, 1)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Enable SIGINT, which shells disable for background processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all(number: signal.Signals) -> None:
    recorder = Recorder()
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
    with pytest.raises(StoppedError, match="run again to resume"):
        recorder.run("never ends:1", "never ends:2", "works")
    assert len(recorder.started) == 2
    assert not any(process.is_alive() for process in recorder.started)
    assert signal.getsignal(signal.SIGTERM) is before
