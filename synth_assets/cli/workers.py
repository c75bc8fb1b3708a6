"""Run several pieces of work in parallel processes, and stop all of them on a signal."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from synth_assets.cli.execution import StoppedError

POLL_S = 0.2
MAX_ATTEMPTS = 2  # for a killed process; a process that failed would fail again
STOP_TIMEOUT_S = 120.0  # an interrupted training finishes its step and writes a checkpoint


def run_each(
    names: Sequence[str],
    start: Callable[[str], BaseProcess],
    at_once: int,
    on_exit: Callable[[str, int], None],
    on_retry: Callable[[], object],
) -> None:
    """Run one process per name, in order. A killed process is restarted once.

    Args:
        names: names of the work.
        start: starts the process of a name.
        at_once: maximum number of parallel processes.
        on_exit: called with the name and the exit code of finished work; negative if it was killed again.
        on_retry: called before killed work is restarted.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; the processes were interrupted and have exited.
    """
    waiting, attempts, running = list(names), Counter[str](), dict[str, BaseProcess]()
    with _stop_on_signal(running):
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                running[name] = start(name)
                attempts[name] += 1
            time.sleep(POLL_S)
            for name in [name for name, process in running.items() if not process.is_alive()]:
                code = running.pop(name).exitcode or 0
                if code < 0 and attempts[name] < MAX_ATTEMPTS:
                    on_retry()
                    waiting.append(name)
                else:
                    on_exit(name, code)


@contextmanager
def _stop_on_signal(running: Mapping[str, BaseProcess]) -> Iterator[None]:
    """Interrupt the processes on Ctrl-C and SIGTERM, wait for them, and raise StoppedError."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        for process in running.values():
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in running.values():
            process.join(max(deadline - time.monotonic(), 0.0))
        raise StoppedError("Stopped. Finished work is kept: run again to resume.") from None
    finally:
        signal.signal(signal.SIGTERM, previous)
        for process in running.values():
            if process.is_alive():
                process.kill()
