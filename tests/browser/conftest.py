"""Fixture that runs `synth ui` in a separate process and stops everything that it started."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from resources.deployment import PROJECT

SYNTH = [sys.executable, "-c", "from synth_assets.cli.app import main; main()"]
READY_TIMEOUT_S = 240.0  # 11 s on an idle machine with two cores
STOP_TIMEOUT_S = 60.0
LAST_LINE = "Press Ctrl-C to stop both."


@dataclass(frozen=True)
class Ui:
    """A running `synth ui`."""

    process: subprocess.Popen[bytes]
    home: Path
    dagster: str
    mlflow: str

    def graphql(self, query: str, **variables: str) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        content = (
            httpx2.post(f"{self.dagster}/graphql", json=body, timeout=60, trust_env=False).raise_for_status().json()
        )
        assert "errors" not in content, content["errors"]
        return content["data"]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def left_running(self, processes: list[psutil.Process]) -> list[str]:
        """Return the command lines of the processes that still run after STOP_TIMEOUT_S; zombies do not count."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while lines := [line for process in processes if (line := command_line(process))]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return lines


def command_line(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):  # also raised for a zombie
        return " ".join(process.cmdline())
    return ""


@contextmanager
def running_ui(home: Path, folder: Path) -> Iterator[Ui]:
    """Run `synth ui` in `folder`, which may contain a workspace.yaml; stop all of its processes afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    output = home / "ui.log"
    environment = os.environ | {"SYNTH_HOME": str(home), "SYNTH_TIER": "cpu", "PYTHONPATH": str(PROJECT)}
    environment.pop("DAGSTER_HOME", None)
    with output.open("wb") as log:
        process = subprocess.Popen([*SYNTH, "ui"], cwd=folder, env=environment, stdout=log, stderr=log)
    started: list[psutil.Process] = []
    try:
        limit = time.monotonic() + READY_TIMEOUT_S
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
                process.wait(STOP_TIMEOUT_S)
            process.kill()
        process.wait()
        for child in started:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture(scope="session")
def start_ui() -> Callable[[Path, Path], AbstractContextManager[Ui]]:
    """Return a context manager that takes SYNTH_HOME and the working folder."""
    return running_ui
