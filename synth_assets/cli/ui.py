"""`synth ui`: serve the Dagster and MLflow UIs for one home, and stop them together."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import httpx2
from rich.console import Console

from resources.deployment import PROJECT, WORKSPACE, find_workspace
from resources.tracking import is_server
from synth_assets.cli.process_guard import end_groups
from synth_assets.cli.request_guard import allowed_hosts
from synth_assets.cli.session import Session
from synth_assets.registry.relocation import ARTIFACTS

LOOPBACK = "127.0.0.1"
DAGSTER_PORT, MLFLOW_PORT = 3000, 5000
HOSTS_VARIABLE = "SYNTH_UI_HOSTS"
READY_TIMEOUT_S = 180.0  # about 15 s on an idle machine, minutes on a busy one
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Children = dict[Path, subprocess.Popen[bytes]]
"""The UI processes, by their log file."""


class AlreadyRunningError(ValueError):
    """The UIs of this SYNTH_HOME are already running; the message names their addresses."""


def run_ui(session: Session, console: Console, names: Sequence[str] = ()) -> None:
    """Start both UIs, print their addresses, and stop them on Ctrl-C or SIGTERM, or when one of them exits.

    If MLFLOW_TRACKING_URI names a server, that server is used and no MLflow UI is started.

    Args:
        session: the deployment.
        console: receives the addresses.
        names: host names to accept, in addition to SYNTH_UI_HOSTS.

    Raises:
        AlreadyRunningError: another `synth ui` serves this SYNTH_HOME.
        OSError: a UI did not start, or exited by itself.
        ValueError: a host name or MLFLOW_TRACKING_URI is invalid.
    """
    names = [*names, *host_names()]
    allowed_hosts(DAGSTER_PORT, names)  # raises for an invalid name before anything starts
    server = session.tracking.uri() if is_server(session.tracking.tracking_uri) else ""
    with _lock_home(session.home) as state, _guard() as guard:
        urls = {
            "dagster": f"http://{LOOPBACK}:{free_port(DAGSTER_PORT)}",
            "mlflow": server or f"http://{LOOPBACK}:{free_port(MLFLOW_PORT)}",
        }
        os.environ["SYNTH_MLFLOW_UI"] = urls["mlflow"]
        session.limit_model_steps()
        state.write(json.dumps({"pid": os.getpid(), **urls}))
        state.flush()
        for number in STOP_SIGNALS:  # a shell starts background processes with Ctrl-C ignored
            signal.signal(number, signal.default_int_handler)
        children: Children = {}
        try:
            logs = session.home / "logs"
            _start(children, logs / "dagster-ui.log", _dagster_command(urls["dagster"], names), guard)
            mlflow_pages = session.tracking.pages(urls["mlflow"])  # imports MLflow for seconds, while Dagster starts
            if not server:
                command, environment = _mlflow_command(session, urls["mlflow"], names)
                _start(children, logs / "mlflow-ui.log", command, guard, environment)
            _wait_until_ready(f"{urls['dagster']}/server_info", children)
            if not server:
                if not _answers(health := f"{urls['mlflow']}/health"):
                    console.print(f"Dagster is ready at {urls['dagster']}; waiting for MLflow ...")
                _wait_until_ready(health, children)
            console.print(_welcome(urls | mlflow_pages, session.home), markup=False, highlight=False, soft_wrap=True)
            while True:
                _raise_if_exited(children)
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("Stopping both UIs ...")
        finally:
            for number in STOP_SIGNALS:  # a second Ctrl-C must not interrupt the clean-up
                signal.signal(number, signal.SIG_IGN)
            end_groups([child.pid for child in children.values()], lambda: [c.poll() for c in children.values()])


def free_port(preferred: int) -> int:
    """Return `preferred` if it is free, else any free port of the loopback interface."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                return probe.getsockname()[1]
    raise OSError(f"no free port on {LOOPBACK}")


def workspace_file() -> Path:
    """Return the path of workspace.yaml. Raises FileNotFoundError if there is none."""
    if path := find_workspace():
        return path
    raise FileNotFoundError(
        f"no {WORKSPACE} in {Path.cwd()} or its parents; run the command in the folder of the project"
    )


def host_names() -> list[str]:
    """Return the host names in SYNTH_UI_HOSTS, a comma-separated list."""
    return [name for name in os.environ.get(HOSTS_VARIABLE, "").split(",") if name.strip()]


def _dagster_command(url: str, names: Sequence[str]) -> list[str]:
    port = url.rpartition(":")[2]
    allowed = [argument for name in names for argument in ("--allow-host", name)]
    return [
        *(sys.executable, "-m", "synth_assets.cli.dagster_services", "--workspace", str(workspace_file())),
        *("--host", LOOPBACK, "--port", port, *allowed),
    ]


def _mlflow_command(session: Session, url: str, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment of the MLflow server. The environment holds the database address."""
    port = url.rpartition(":")[2]
    hosts = sorted(allowed_hosts(int(port), names))
    origins = ",".join(f"{scheme}://{host}" for host in hosts for scheme in ("http", "https"))
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", port, "--workers", "1"),
        *("--artifacts-destination", (session.home / ARTIFACTS).as_uri(), "--serve-artifacts"),
        *("--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", origins),
    ]
    return command, {**os.environ, "MLFLOW_BACKEND_STORE_URI": session.tracking.uri()}


def _guard() -> subprocess.Popen[str]:
    """Start the process that stops the UIs if this one is killed. It acts when its standard input is closed."""
    command = [sys.executable, "-m", "synth_assets.cli.process_guard"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=PROJECT, process_group=0, text=True)


def _start(
    children: Children,
    log: Path,
    command: list[str],
    guard: subprocess.Popen[str],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Start a UI in its own process group, and register the group with the guard."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0, env=environment
        )
    children[log] = child
    print(child.pid, file=guard.stdin, flush=True)


def _raise_if_exited(children: Children) -> None:
    for log, child in children.items():
        if child.poll() is not None:
            raise OSError(f"a UI exited unexpectedly with code {child.returncode}; see the end of {log}")


def _wait_until_ready(page: str, children: Children) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _answers(page):
        _raise_if_exited(children)
        if time.monotonic() > deadline:
            logs = " and ".join(map(str, children))
            raise TimeoutError(f"{page} did not answer within {READY_TIMEOUT_S:.0f} s; see {logs}")
        time.sleep(0.3)


def _answers(page: str) -> bool:
    try:
        return httpx2.get(page, timeout=2, trust_env=False).is_success  # no proxy: the server runs on this machine
    except httpx2.HTTPError:
        return False


@contextlib.contextmanager
def _lock_home(home: Path) -> Iterator[IO[str]]:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "ui.json"
    with path.open("a+", encoding="utf-8") as state:
        try:
            fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state.seek(0)
            running = json.loads(state.read() or "{}")
            addresses = (
                f"Dagster {running.get('dagster')}, MLflow {running.get('mlflow')}, process {running.get('pid')}"
            )
            raise AlreadyRunningError(f"the UIs are already running: {addresses}") from None
        state.truncate(0)
        yield state
        state.truncate(0)


def _welcome(urls: dict[str, str], home: Path) -> str:
    return f"""
Start    {urls["dagster"]}/home/   champion, decisions, failing checks, report
Dagster  {urls["dagster"]}   runs, asset graph, checks and lineage
MLflow   {urls["mlflow"]}   training runs, scores, model versions and aliases
  runs   {urls["runs"]}
  models {urls["models"]}
State    {home}

Run      Jobs > pipeline > Materialize all: choose a batch, or add one.
Promote  Jobs > promote.
Automate Automation: the weekly batch, new imports and notices are off by default.
Press Ctrl-C to stop both.
"""
