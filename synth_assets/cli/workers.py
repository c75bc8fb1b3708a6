"""Processes beside each other, one for each piece of work, ended together."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from synth_assets.cli.run import StoppedError

POLL_S = 0.2
TRIES = 2  # of work whose process was killed; what failed by itself would fail again
STOPPED_WITHIN_S = 120.0  # a training that is told to stop ends its step and writes a checkpoint


def run_each(
    names: Sequence[str],
    start: Callable[[str], BaseProcess],
    at_once: int,
    ended: Callable[[str, int], None],
    killed: Callable[[], object],
) -> None:
    """Have a process for each name, in order.

    Args:
        names: the work.
        start: a process that has begun with it.
        at_once: how many of them at most.
        ended: is told of work that is over, with the exit code; negative: killed, for the second time.
        killed: is called before killed work is tried again.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; the processes were told, and have ended.
    """
    waiting, tries, running = list(names), Counter[str](), dict[str, BaseProcess]()
    with _ending(running):
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                running[name] = start(name)
                tries[name] += 1
            time.sleep(POLL_S)
            for name in [name for name, process in running.items() if not process.is_alive()]:
                code = running.pop(name).exitcode or 0
                if code < 0 and tries[name] < TRIES:
                    killed()
                    waiting.append(name)
                else:
                    ended(name, code)


@contextmanager
def _ending(running: Mapping[str, BaseProcess]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into the end of the processes, then StoppedError."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        for process in running.values():
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + STOPPED_WITHIN_S
        for process in running.values():
            process.join(max(deadline - time.monotonic(), 0.0))
        raise StoppedError("stopped; what was made is kept: run again to go on") from None
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running.values():
            if process.is_alive():
                process.kill()
