"""`synth ui` starts both UIs, runs once per SYNTH_HOME, and leaves no process behind however it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from resources.deployment import PROJECT
from synth_assets.cli.app import STARTING_UIS
from synth_assets.cli.ui import DAGSTER_PORT, LOOPBACK, MLFLOW_PORT, free_port

pytestmark = pytest.mark.browser

SYNTH_UI = [sys.executable, "-c", "from synth_assets.cli.app import main; main()", "ui"]
LOCATION = "import dagster as dg\n\n@dg.asset\ndef thing():\n    pass\n\ndefs = dg.Definitions([thing])\n"
WORKSPACE = "load_from:\n  - python_file: {relative_path: one_asset.py, location_name: synth_assets}\n"

StartUi = Callable[[Path, Path], AbstractContextManager[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a workspace with one asset, which loads faster than the project's own."""
    (tmp_path / "one_asset.py").write_text(LOCATION)
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    return tmp_path


@pytest.fixture
def taken_ports() -> Iterator[set[str]]:
    """Occupy the two default ports."""
    sockets = [socket.socket(), socket.socket()]
    for taken, port in zip(sockets, (DAGSTER_PORT, MLFLOW_PORT), strict=True):
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the previous test may have used it
        with suppress(OSError):  # the port is already taken
            taken.bind((LOOPBACK, port))
            taken.listen()
    yield {str(DAGSTER_PORT), str(MLFLOW_PORT)}
    for taken in sockets:
        taken.close()


def page(url: str) -> str:
    return httpx2.get(url, timeout=10, trust_env=False).raise_for_status().text


def port_of(url: str) -> str:
    return url.rpartition(":")[2]


def test_both_uis_serve_the_project_until_ctrl_c(start_ui: StartUi, own_home: Path) -> None:
    with start_ui(own_home, PROJECT) as ui:
        assert page(f"{ui.mlflow}/health") == "OK"
        jobs = ui.graphql("{repositoriesOrError{... on RepositoryConnection{nodes{jobs{name}}}}}")
        assert {"pipeline", "promote"} <= {job["name"] for job in jobs["repositoriesOrError"]["nodes"][0]["jobs"]}

        started = ui.descendants()
        assert len(started) > 2
        ui.process.send_signal(signal.SIGINT)
        assert ui.process.wait(30) == 0
        assert ui.left_running(started) == []
    words = (own_home / "ui.log").read_text()
    assert ui.dagster in words
    assert ui.mlflow in words
    assert "Traceback" not in words


def test_a_second_command_names_the_addresses_of_the_first(start_ui: StartUi, own_home: Path, folder: Path) -> None:
    with start_ui(own_home, folder) as ui:
        second = subprocess.run(SYNTH_UI, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert second.stdout == f"{STARTING_UIS}\n"
        addresses = f"Dagster {ui.dagster}, MLflow {ui.mlflow}, process {ui.process.pid}"
        assert second.stderr == f"synth: the UIs are already running: {addresses}\n"
        assert ui.process.poll() is None

        started = ui.descendants()
        ui.process.terminate()
        assert ui.process.wait(30) == 0
        assert ui.left_running(started) == []


def test_other_ports_are_used_and_a_killed_command_leaves_no_process(
    start_ui: StartUi, own_home: Path, folder: Path, taken_ports: set[str]
) -> None:
    with start_ui(own_home, folder) as ui:
        assert {port_of(ui.dagster), port_of(ui.mlflow)}.isdisjoint(taken_ports)
        started = ui.descendants()
        ui.process.kill()
        assert ui.process.wait(30) == -signal.SIGKILL
        assert ui.left_running(started) == []


def test_a_ui_that_exits_ends_the_command(start_ui: StartUi, own_home: Path, folder: Path) -> None:
    with start_ui(own_home, folder) as ui:
        started = ui.descendants()
        mlflow = next(p for p in started if "mlflow" in p.cmdline())
        os.kill(mlflow.pid, signal.SIGKILL)
        assert ui.process.wait(60) == 2
        assert ui.left_running(started) == []
    last = (own_home / "ui.log").read_text().splitlines()[-1]
    log = own_home / "logs" / "mlflow-ui.log"
    assert last == f"synth: a UI exited unexpectedly with code -9; see the end of {log}"


def test_a_free_port_is_the_preferred_one_or_another() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        preferred = taken.getsockname()[1]
        assert free_port(preferred) != preferred
    assert free_port(preferred) == preferred
