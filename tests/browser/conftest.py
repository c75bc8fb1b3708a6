"""`synth ui` as a program, with all that it starts ended at the end, also where a test fails."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from resources.deployment import PROJECT

SYNTH = [sys.executable, "-c", "from synth_assets.cli.app import main; main()"]
READY_WITHIN_S = 240.0  # 11 s on an idle machine with two cores
END_WITHIN_S = 60.0
LAST_LINE = "Press Ctrl-C to stop both."


@dataclass(frozen=True)
class Ui:
    """A running `synth ui`."""

    process: subprocess.Popen[bytes]
    home: Path
    dagster: str
    mlflow: str

    def graphql(self, query: str, **variables: str) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.dagster}/graphql", body, kind)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def left_running(self, processes: list[psutil.Process]) -> list[str]:
        """The command lines of those that still run after END_WITHIN_S; a zombie does not run."""
        limit = time.monotonic() + END_WITHIN_S
        while (left := [line for process in processes if (line := command_line(process))]) and time.monotonic() < limit:
            time.sleep(0.1)
        return left


def command_line(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):  # a zombie is one of these
        return " ".join(process.cmdline())
    return ""


@contextmanager
def running_ui(home: Path, folder: Path) -> Iterator[Ui]:
    """`synth ui` started in `folder`, where a workspace.yaml may lie; everything it started is ended afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    output = home / "ui.log"
    environment = os.environ | {"SYNTH_HOME": str(home), "SYNTH_TIER": "cpu", "PYTHONPATH": str(PROJECT)}
    environment.pop("DAGSTER_HOME", None)
    with output.open("wb") as log:
        process = subprocess.Popen([*SYNTH, "ui"], cwd=folder, env=environment, stdout=log, stderr=log)
    started: list[psutil.Process] = []
    try:
        limit = time.monotonic() + READY_WITHIN_S
        while LAST_LINE not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < limit, output.read_text()
            time.sleep(0.1)
        state = json.loads((home / "ui.json").read_text())
        ui = Ui(process, home, state["dagster"], state["mlflow"])
        yield ui
    finally:
        if process.poll() is None:
            started = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_WITHIN_S)
            process.kill()
        process.wait()
        for left in started:
            with suppress(psutil.NoSuchProcess):
                left.kill()


@pytest.fixture(scope="session")
def start_ui() -> Callable[[Path, Path], AbstractContextManager[Ui]]:
    """Call it with a SYNTH_HOME and the folder to start in."""
    return running_ui
