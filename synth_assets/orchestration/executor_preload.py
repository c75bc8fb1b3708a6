"""Preload module for the fork server: silence library output and exit when the parent worker exits.

The executor preloads it first (orchestration/jobs.py), for its side effects. Without it, a step would outlive a killed
worker and run in parallel with the same step of the next run.
"""

import ctypes
import gc
import os
import signal
import sys

from synth_assets.llm.quiet import silence_libraries

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it exits. Does nothing outside Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def prepare() -> None:
    """Freeze the garbage collector and leave the worker's process group. Called before each fork.

    The first full collection of a step would otherwise copy every page of the preloaded objects (0.6 s). In a group of
    its own, a step does not receive the signals that a terminal or `timeout` sends to the worker's group. The worker
    interrupts its steps itself, and would wait forever for a step that the same signal has killed.
    """
    gc.freeze()
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


class EndWithForkServer:
    """Callback after a fork that ties a step process to the fork server: the step exits when the fork server does.

    The exit of the worker is not enough, because each step holds the pipe by which the fork server would notice it.
    Processes that a step forks are not affected.
    """

    def __init__(self) -> None:
        """Remember the process id of the fork server, which creates the callback."""
        self.fork_server = os.getpid()

    def __call__(self) -> None:
        """Tie the current process to the fork server, unless it was forked by a step."""
        fork_server, self.fork_server = self.fork_server, 0
        if fork_server:
            end_with_parent()
            if os.getppid() != fork_server:  # the fork server exited before the call above
                os._exit(1)


silence_libraries()
end_with_parent()
signal.signal(signal.SIGINT, lambda *_: os._exit(1))  # during the imports; later multiprocessing ignores SIGINT
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by start_fork_server
os.register_at_fork(before=prepare, after_in_child=EndWithForkServer())
