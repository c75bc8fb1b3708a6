"""Serve the Dagster UI behind RequestGuard, with a code server and a daemon as in `dagster dev`.

`python -m synth_assets.cli.dagster_services --workspace FILE --host HOST --port PORT` runs until Ctrl-C or until one of
its processes exits. tests/browser/test_request_guard_in_front.py covers it.
"""

import argparse
import functools
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import yaml
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__

from resources.dagster_private import DAEMON_MODULE, code_servers, workspace_process
from resources.deployment import home_folder
from synth_assets.cli.home_apps import HomeApps
from synth_assets.cli.home_files import HomeFiles
from synth_assets.cli.index_page import refresh_index
from synth_assets.cli.playground import Playground
from synth_assets.cli.playground_page import PlaygroundPage
from synth_assets.cli.request_guard import RequestGuard, allowed_hosts
from synth_assets.cli.rows_page import RowsPage
from synth_assets.cli.session import open_session
from synth_assets.orchestration.yaml_numbers import read_exponents_in_launchpad

if TYPE_CHECKING:
    import uvicorn

STATEMENT_TIMEOUT_MS, POOL_RECYCLE_S, POOL_OVERFLOW = 15_000, 3_600, 20  # the defaults of dagster-webserver
DAEMON_STOPS_WITHIN_S = 10.0


def serve(workspace: Path, host: str, port: int, hosts: frozenset[str]) -> None:
    """Serve the guarded UI for the code locations of a workspace file until a signal arrives."""
    with dg.DagsterInstance.get() as instance, _webserver(instance, workspace, host, port, hosts) as server:
        server.run()


def serve_all(workspace: Path, host: str, port: int, hosts: frozenset[str]) -> int:
    """Serve the guarded UI and run a daemon, both on one code server; return the exit code.

    The exit code is 1 if the daemon exits by itself.
    """
    os.environ["DAGSTER_IS_DEV_CLI"] = "1"
    with (
        dg.DagsterInstance.get() as instance,
        _code_servers(instance, workspace) as server_workspace,
        _webserver(instance, server_workspace, host, port, hosts) as server,
        _daemon(server_workspace) as daemon,
    ):
        daemon_failed = threading.Event()
        threading.Thread(target=_stop_with, args=(daemon, server, daemon_failed), daemon=True).start()
        server.run()
        return int(daemon_failed.is_set())


@contextmanager
def _webserver(
    instance: dg.DagsterInstance, workspace: Path, host: str, port: int, hosts: frozenset[str]
) -> "Iterator[uvicorn.Server]":
    import uvicorn

    read_exponents_in_launchpad()
    instance.optimize_for_webserver(STATEMENT_TIMEOUT_MS, POOL_RECYCLE_S, POOL_OVERFLOW)
    with workspace_process(instance, workspace, __version__) as context:
        app = HomeFiles(create_app_from_workspace_process_context(context), home_folder(), refresh_index)
        session = functools.cache(lambda: open_session(read_only=True))
        app = HomeApps(app, [*RowsPage(session).routes(), *PlaygroundPage(lambda: Playground(session())).routes()])
        app = RequestGuard(app, hosts)
        yield uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False))


@contextmanager
def _code_servers(instance: dg.DagsterInstance, workspace: Path) -> Iterator[Path]:
    """Start the code servers of a workspace file; yield a workspace file that names their sockets."""
    with (
        code_servers(instance, workspace) as servers,
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "workspace.yaml"
        path.write_text(yaml.safe_dump({"load_from": [dict(spec) for spec in servers.get_code_server_specs()]}))
        yield path


@contextmanager
def _daemon(workspace: Path) -> Iterator[subprocess.Popen[bytes]]:
    daemon = subprocess.Popen([sys.executable, "-m", DAEMON_MODULE, "run", "-w", str(workspace)])
    try:
        yield daemon
    finally:
        daemon.terminate()
        try:
            daemon.wait(DAEMON_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _stop_with(daemon: subprocess.Popen[bytes], server: "uvicorn.Server", failed: threading.Event) -> None:
    """Stop the server when the daemon exits, and set `failed` unless the server is already stopping."""
    code = daemon.wait()
    if not server.should_exit:
        logging.getLogger(__name__).error("The Dagster daemon exited unexpectedly with code %s", code)
        failed.set()
        server.should_exit = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run the services; return the exit code."""
    parser = argparse.ArgumentParser(description="The Dagster UI, its code server and its daemon.")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--allow-host", action="append", default=[])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return serve_all(options.workspace, options.host, options.port, allowed_hosts(options.port, options.allow_host))
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
