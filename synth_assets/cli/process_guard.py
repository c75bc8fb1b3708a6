"""Terminate the process groups of `synth ui` when it exits, even if it is killed.

`python -m synth_assets.cli.process_guard` reads process group ids from standard input, one per line, and terminates the
groups when the input is closed. The kernel closes it when the writing process exits.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

STOP_WITHIN_S = 15.0


def end_groups(groups: Iterable[int], reap: Callable[[], object] = lambda: None) -> None:
    """Interrupt each process group, and kill those that still run after STOP_WITHIN_S.

    Args:
        groups: process group ids; groups that have already exited are ignored.
        reap: called before each poll to collect exited children, which otherwise count as members of their group.
    """
    running = set(groups)
    for number in (signal.SIGINT, signal.SIGKILL):
        running = {group for group in running if _send(group, number)}
        deadline = time.monotonic() + STOP_WITHIN_S
        while running and time.monotonic() < deadline:
            time.sleep(0.1)
            reap()
            running = {group for group in running if _send(group, 0)}


def _send(group: int, number: int) -> bool:
    """Send a signal (0 for none) to a process group; return False if the group has no process."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the guard must outlive `synth ui`
        signal.signal(number, signal.SIG_IGN)
    end_groups([int(line) for line in sys.stdin])
