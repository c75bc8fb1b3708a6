"""`synth ui`: the Dagster and MLflow UIs over the same state, ended together."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

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
READY_WITHIN_S = 180.0  # about 15 s on an idle machine; a busy one takes minutes
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Children = dict[Path, subprocess.Popen[bytes]]
"""The UIs by the log file that each writes."""


class AlreadyRunningError(ValueError):
    """The UIs of this SYNTH_HOME are up already; the message says where."""


def run_ui(session: Session, console: Console, names: Sequence[str] = ()) -> None:
    """Start both UIs, print where they are, and end them at Ctrl-C or SIGTERM, or when one of them ends.

    Where MLFLOW_TRACKING_URI names a server, that one is used and none is started.

    Args:
        session: the deployment.
        console: where to print.
        names: more host names by which the UIs may be reached, beside those of SYNTH_UI_HOSTS.

    Raises:
        AlreadyRunningError: another `synth ui` serves this SYNTH_HOME.
        OSError: a UI did not start, or ended by itself.
        ValueError: a host name is none, or MLFLOW_TRACKING_URI cannot be used.
    """
    names = [*names, *host_names()]
    allowed_hosts(DAGSTER_PORT, names)  # a wrong name is told before anything starts
    served = session.tracking.uri() if is_server(session.tracking.tracking_uri) else ""
    with _only_one(session.home) as state, _guard() as guard:
        urls = {
            "dagster": f"http://{LOOPBACK}:{free_port(DAGSTER_PORT)}",
            "mlflow": served or f"http://{LOOPBACK}:{free_port(MLFLOW_PORT)}",
        }
        os.environ["SYNTH_MLFLOW_UI"] = urls["mlflow"]
        session.limit_model_steps()
        session.tracking.initialise()
        state.write(json.dumps({"pid": os.getpid(), **urls}))
        state.flush()
        for asked_to_end in END_SIGNALS:  # also where a script's `&` made this process and its children ignore Ctrl-C
            signal.signal(asked_to_end, signal.default_int_handler)
        children: Children = {}
        try:
            logs = session.home / "logs"
            _start(children, logs / "dagster-ui.log", _dagster_command(urls["dagster"], names), guard)
            if not served:
                command, environment = _mlflow_command(session, urls["mlflow"], names)
                _start(children, logs / "mlflow-ui.log", command, guard, environment)
            pages = [f"{urls['dagster']}/server_info", *([] if served else [f"{urls['mlflow']}/health"])]
            _wait_until_ready(pages, children)
            console.print(_welcome(urls, session.home), markup=False, highlight=False)
            while True:
                _fail_where_ended(children)
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("ending both UIs ...")
        finally:
            for impatient in END_SIGNALS:
                signal.signal(impatient, signal.SIG_IGN)
            end_groups([child.pid for child in children.values()], lambda: [c.poll() for c in children.values()])


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


def host_names() -> list[str]:
    """Return the host names of SYNTH_UI_HOSTS, which are separated by commas."""
    return [name for name in os.environ.get(HOSTS_VARIABLE, "").split(",") if name.strip()]


def _dagster_command(url: str, names: Sequence[str]) -> list[str]:
    port = url.rpartition(":")[2]
    allowed = [argument for name in names for argument in ("--allow-host", name)]
    return [
        *(sys.executable, "-m", "synth_assets.cli.dagster_services", "--workspace", str(workspace_file())),
        *("--host", LOOPBACK, "--port", port, *allowed),
    ]


def _mlflow_command(session: Session, url: str, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of the MLflow server and its environment, by which the database comes, password and all."""
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
    """The process that ends the UIs even if this one is killed; it ends when its standard input is closed."""
    command = [sys.executable, "-m", "synth_assets.cli.process_guard"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=PROJECT, process_group=0, text=True)


def _start(
    children: Children,
    log: Path,
    command: list[str],
    guard: subprocess.Popen[str],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Start a UI as the leader of a process group, and tell the guard."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0, env=environment
        )
    children[log] = child
    print(child.pid, file=guard.stdin, flush=True)


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
