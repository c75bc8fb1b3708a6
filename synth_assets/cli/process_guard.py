"""Ends process groups: those of `synth ui` at its end, and as a program of its own even where `synth ui` was killed.

`python -m synth_assets.cli.process_guard` reads the number of a group from each line of its standard input, and ends
them all once that input is closed, which the kernel does when the process that writes it is gone.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

STOP_WITHIN_S = 15.0


def end_groups(groups: Iterable[int], reap: Callable[[], object] = lambda: None) -> None:
    """Ask each process group to end, and kill what is left of it after STOP_WITHIN_S.

    Args:
        groups: their numbers; one that is gone already is no error.
        reap: called before each look, to collect ended children, which else count as members of their group.
    """
    left = set(groups)
    for sent in (signal.SIGINT, signal.SIGKILL):
        left = {group for group in left if _send(group, sent)}
        limit = time.monotonic() + STOP_WITHIN_S
        while left and time.monotonic() < limit:
            time.sleep(0.1)
            reap()
            left = {group for group in left if _send(group, 0)}


def _send(group: int, sent: int) -> bool:
    """Whether anything was left of a process group, which gets the signal (0 for none)."""
    try:
        os.killpg(group, sent)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    for asked_to_end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it is the last to go
        signal.signal(asked_to_end, signal.SIG_IGN)
    end_groups([int(line) for line in sys.stdin])
