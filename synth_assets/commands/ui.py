"""`synth ui`: the Dagster and MLflow UIs over the same state, ended together."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from rich.console import Console

from resources.deployment import WORKSPACE, find_workspace
from resources.storage import Home
from resources.tracking import MlflowTracking
from synth_assets.commands.session import Session

LOOPBACK = "127.0.0.1"
DAGSTER_PORT, MLFLOW_PORT = 3000, 5000
GPU_SLOTS = 1
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Children = dict[Path, subprocess.Popen[bytes]]
"""The UIs by the log file that each writes."""


class AlreadyRunningError(ValueError):
    """The UIs of this SYNTH_HOME are up already; the message says where."""


def run_ui(session: Session, console: Console) -> None:
    """Start both UIs, print where they are, and end them at Ctrl-C or SIGTERM, or when one of them ends.

    Raises:
        AlreadyRunningError: another `synth ui` serves this SYNTH_HOME.
        OSError: a UI did not start, or ended by itself.
    """
    with _only_one(session.home) as state:
        urls = {
            "dagster": f"http://{LOOPBACK}:{free_port(DAGSTER_PORT)}",
            "mlflow": f"http://{LOOPBACK}:{free_port(MLFLOW_PORT)}",
        }
        os.environ["SYNTH_MLFLOW_UI"] = urls["mlflow"]
        session.instance.event_log_storage.set_concurrency_slots("gpu", GPU_SLOTS)
        MlflowTracking(home=Home(folder=str(session.home))).initialise()
        state.write(json.dumps({"pid": os.getpid(), **urls}))
        state.flush()
        for asked_to_end in END_SIGNALS:  # also where a script's `&` made this process and its children ignore Ctrl-C
            signal.signal(asked_to_end, signal.default_int_handler)
        children: Children = {}
        try:
            _start(children, session.home / "logs" / "dagster-ui.log", _dagster_command(urls["dagster"]))
            _start(children, session.home / "logs" / "mlflow-ui.log", _mlflow_command(session.home, urls["mlflow"]))
            _wait_until_ready([f"{urls['dagster']}/server_info", f"{urls['mlflow']}/health"], children)
            console.print(_welcome(urls, session.home), markup=False, highlight=False)
            while True:
                _fail_where_ended(children)
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("ending both UIs ...")
        finally:
            _stop(children.values())


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
    """The workspace.yaml in use; FileNotFoundError where there is none."""
    if found := find_workspace():
        return found
    raise FileNotFoundError(f"no {WORKSPACE} here or above {Path.cwd()}: run from the project's folder")


def _dagster_command(url: str) -> list[str]:
    port = url.rpartition(":")[2]
    return [sys.executable, "-m", "dagster", "dev", "-w", str(workspace_file()), "-h", LOOPBACK, "-p", port]


def _mlflow_command(home: Path, url: str) -> list[str]:
    port = url.rpartition(":")[2]
    store = MlflowTracking(home=Home(folder=str(home))).uri()
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", port, "--workers", "1"),
        *("--backend-store-uri", store, "--artifacts-destination", str(home / "mlartifacts"), "--serve-artifacts"),
        *("--allowed-hosts", f"{LOOPBACK}:{port},localhost:{port}"),
    ]


def _start(children: Children, log: Path, command: list[str]) -> None:
    """Start a UI in a process group of its own; where setpriv is (Linux), it ends even if this process is killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    tie = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with log.open("ab") as output:
        children[log] = subprocess.Popen(
            [*tie, *command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0
        )


def _fail_where_ended(children: Children) -> None:
    for log, child in children.items():
        if child.poll() is not None:
            raise OSError(f"a UI ended by itself with code {child.returncode}; its last words are in {log}")


def _wait_until_ready(pages: list[str], children: Children) -> None:
    limit = time.monotonic() + READY_WITHIN_S
    for page in pages:
        while not _answers(page):
            _fail_where_ended(children)
            if time.monotonic() > limit:
                logs = " and ".join(map(str, children))
                raise TimeoutError(f"{page} did not answer within {READY_WITHIN_S:.0f} s; see {logs}")
            time.sleep(0.3)


def _answers(page: str) -> bool:
    try:
        with urllib.request.urlopen(page, timeout=2):  # noqa: S310 - our own server
            return True
    except OSError:
        return False


def _stop(children: Iterable[subprocess.Popen[bytes]]) -> None:
    """End each UI with all that it started, runs included; what does not end by itself is killed."""
    for impatient in END_SIGNALS:
        signal.signal(impatient, signal.SIG_IGN)
    for sent in (signal.SIGINT, signal.SIGKILL):
        limit = time.monotonic() + STOP_WITHIN_S
        for child in children:
            _send(child, sent)
        while any(_send(child, 0) for child in children) and time.monotonic() < limit:
            time.sleep(0.1)


def _send(child: subprocess.Popen[bytes], sent: int) -> bool:
    """Whether anything was left of the process group that `child` leads, which gets the signal (0 for none)."""
    child.poll()
    try:
        os.killpg(child.pid, sent)
    except ProcessLookupError:
        return False
    return True


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
