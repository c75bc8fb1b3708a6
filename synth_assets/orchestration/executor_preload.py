"""Preload module for the fork server: silence library output and exit when the parent worker exits.

Import it for its effect, as the first module that the executor preloads (orchestration/jobs.py). Without it a step
outlives its killed worker and runs beside the same step of the next run.
"""

import ctypes
import gc
import os
import signal
import sys

from synth_assets.llm.quiet import silence_libraries

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the kernel kill this process once the thread that started it is gone; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def prepare() -> None:
    """Called before each fork: what is loaded is frozen, and the group of the worker left.

    A step's first full collection would touch, and so copy, every page of what is not frozen (0.6 s). What a terminal
    or `timeout` sends to the worker's process group is then for the worker alone, which tells its steps: from one that
    died of the same signal meanwhile it would wait for an answer for ever.
    """
    gc.freeze()
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


class EndWithForkServer:
    """Called in each process that is forked from this one: a step ends with the fork server.

    The worker's end alone would not do: each step holds the pipe by which the fork server would notice it. What a step
    forks in its turn is left to the step.
    """

    def __init__(self) -> None:
        """Make it in the fork server."""
        self.fork_server = os.getpid()

    def __call__(self) -> None:
        """Bind the process that runs this, unless an earlier generation was bound already."""
        fork_server, self.fork_server = self.fork_server, 0
        if fork_server:
            end_with_parent()
            if os.getppid() != fork_server:  # it was gone before the kernel was told
                os._exit(1)


silence_libraries()
end_with_parent()
signal.signal(signal.SIGINT, lambda *_: os._exit(1))  # while it still loads; afterwards multiprocessing ignores it
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked since its start, see `start_fork_server`
os.register_at_fork(before=prepare, after_in_child=EndWithForkServer())
