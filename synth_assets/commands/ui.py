"""`synth ui`: the Dagster and MLflow UIs over the same state, ended together."""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console

from resources.deployment import PROJECT, WORKSPACE
from resources.storage import Home
from resources.tracking import MlflowTracking
from synth_assets.commands.session import Session

LOOPBACK = "127.0.0.1"
DAGSTER_PORT, MLFLOW_PORT = 3000, 5000
GPU_SLOTS = 1
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class AlreadyRunningError(ValueError):
    """The UIs of this SYNTH_HOME are up already; the message says where."""


def run_ui(session: Session, console: Console) -> None:
    """Start both UIs, print where they are, and end them at Ctrl-C or when one of them ends.

    Raises:
        AlreadyRunningError: another `synth ui` serves this SYNTH_HOME.
    """
    with _only_one(session.home) as state:
        dagster_port, mlflow_port = free_port(DAGSTER_PORT), free_port(MLFLOW_PORT)
        urls = {"dagster": f"http://{LOOPBACK}:{dagster_port}", "mlflow": f"http://{LOOPBACK}:{mlflow_port}"}
        os.environ["SYNTH_MLFLOW_UI"] = urls["mlflow"]
        session.instance.event_log_storage.set_concurrency_slots("gpu", GPU_SLOTS)
        MlflowTracking(home=Home(folder=str(session.home))).initialise()
        state.write(json.dumps({"pid": os.getpid(), **urls}))
        state.flush()
        logs = session.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        children = [
            _start(_dagster_command(dagster_port), logs / "dagster-ui.log"),
            _start(_mlflow_command(session.home, mlflow_port), logs / "mlflow-ui.log"),
        ]
        try:
            _wait_until_ready(urls, children)
            console.print(_welcome(urls, session.home), markup=False, highlight=False)
            while all(child.poll() is None for child in children):
                time.sleep(0.5)
            raise OSError(f"one of the UIs ended by itself; its last words are in {logs}")
        except KeyboardInterrupt:
            console.print("ending both UIs ...")
        finally:
            _stop(children)


def free_port(wanted: int) -> int:
    """`wanted` if nothing listens there, else any free port of the loopback interface."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                return probe.getsockname()[1]
    raise OSError(f"no free port on {LOOPBACK}")


def workspace_file() -> Path:
    """The workspace.yaml in use: the nearest one upwards, else the project's own."""
    here = Path.cwd()
    for folder in (here, *here.parents, PROJECT):
        if (folder / WORKSPACE).is_file():
            return folder / WORKSPACE
    raise FileNotFoundError(f"no {WORKSPACE} here or above {here}: run from the project's folder")


def _dagster_command(port: int) -> list[str]:
    return [sys.executable, "-m", "dagster", "dev", "-w", str(workspace_file()), "-h", LOOPBACK, "-p", str(port)]


def _mlflow_command(home: Path, port: int) -> list[str]:
    store = MlflowTracking(home=Home(folder=str(home))).uri()
    hosts = f"{LOOPBACK}:{port},localhost:{port}"
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store, "--artifacts-destination", str(home / "mlartifacts"), "--serve-artifacts"),
        *("--allowed-hosts", hosts),
    ]


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    output = log.open("ab")
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=output,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - no other thread runs yet
    )


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(urls: dict[str, str], children: list[subprocess.Popen[bytes]]) -> None:
    limit = time.monotonic() + READY_WITHIN_S
    waiting = [f"{urls['dagster']}/server_info", f"{urls['mlflow']}/health"]
    while waiting and time.monotonic() < limit and all(child.poll() is None for child in children):
        with contextlib.suppress(OSError, urllib.error.URLError):
            with urllib.request.urlopen(waiting[0], timeout=2):  # noqa: S310
                waiting.pop(0)
            continue
        time.sleep(0.3)
    if waiting:
        raise OSError(f"{waiting[0]} did not answer within {READY_WITHIN_S:.0f} s; see SYNTH_HOME/logs")


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for sent in (signal.SIGINT, signal.SIGKILL):
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, sent)
        limit = time.monotonic() + STOP_WITHIN_S
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, limit - time.monotonic()))


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[IO[str]]:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "ui.json"
    with path.open("a+", encoding="utf-8") as state:
        try:
            fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state.seek(0)
            running = json.loads(state.read() or "{}")
            where = f"Dagster {running.get('dagster')}, MLflow {running.get('mlflow')}, process {running.get('pid')}"
            raise AlreadyRunningError(f"the UIs are running already: {where}") from None
        state.truncate(0)
        yield state
        state.truncate(0)


def _welcome(urls: dict[str, str], home: Path) -> str:
    return f"""
Dagster  {urls["dagster"]}   materialise, watch, browse lineage
MLflow   {urls["mlflow"]}   runs, scores, registered versions and aliases
State    {home}

Start    Jobs > pipeline > Materialize all: choose a batch, or add one.
Promote  Jobs > promote. Automation (the Monday batch, new imports, notices) is off
         until you switch it on under Automation.
Ctrl-C ends both.
"""
