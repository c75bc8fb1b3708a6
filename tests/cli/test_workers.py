"""Processes beside each other: how many at once, what failed, what was killed, and what a signal ends."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

import pytest

from synth_assets.cli.run import StoppedError
from synth_assets.cli.workers import run_each

WORK: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
    "sleeps": (time.sleep, (0.3,)),
    "works": (sys.exit, (0,)),
    "fails": (sys.exit, (1,)),
    "dies": (signal.raise_signal, (signal.SIGKILL,)),
    "never ends": (time.sleep, (60.0,)),
}
CONTEXT = multiprocessing.get_context("forkserver")


class Foreman:
    """Starts processes and remembers what became of them."""

    def __init__(self) -> None:
        self.started: list[BaseProcess] = []
        self.most_at_once = 0
        self.codes: dict[str, int] = {}
        self.deaths = 0

    def run(self, *names: str, at_once: int = 2) -> None:
        run_each(names, self.start, at_once, self.codes.__setitem__, self.count_death)

    def start(self, name: str) -> BaseProcess:
        target, arguments = WORK[name.partition(":")[0]]
        process = CONTEXT.Process(target=target, args=arguments)
        process.start()
        self.started.append(process)
        self.most_at_once = max(self.most_at_once, sum(p.is_alive() for p in self.started))
        return process

    def count_death(self) -> None:
        self.deaths += 1


def test_each_is_run_and_no_more_than_allowed_at_once() -> None:
    foreman = Foreman()
    foreman.run("sleeps:1", "sleeps:2", "sleeps:3", "works", at_once=2)
    assert foreman.codes == {"sleeps:1": 0, "sleeps:2": 0, "sleeps:3": 0, "works": 0}
    assert foreman.most_at_once <= 2


def test_one_that_fails_is_told_and_the_others_go_on() -> None:
    foreman = Foreman()
    foreman.run("fails", "works", at_once=1)
    assert foreman.codes == {"fails": 1, "works": 0}
    assert len(foreman.started) == 2


def test_one_that_is_killed_is_tried_once_more() -> None:
    foreman = Foreman()
    foreman.run("dies", "works", at_once=1)
    assert foreman.codes == {"works": 0, "dies": -signal.SIGKILL}
    assert (len(foreman.started), foreman.deaths) == (3, 1)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as in a terminal; a shell starts what runs in its background without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_them(number: signal.Signals) -> None:
    foreman = Foreman()
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
    with pytest.raises(StoppedError, match="run again to resume"):
        foreman.run("never ends:1", "never ends:2", "works")
    assert len(foreman.started) == 2
    assert not any(process.is_alive() for process in foreman.started)
    assert signal.getsignal(signal.SIGTERM) is before
