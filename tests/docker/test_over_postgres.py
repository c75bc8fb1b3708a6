"""Commands with the settings of the containers on a real Postgres; the password is only in PGPASSWORD."""

import http.client
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from resources.deployment import PROJECT

PASSWORD = "p@ss/w:rd#1%"  # noqa: S105 - of a temporary database; an address could not contain it unescaped
SYNTH = [sys.executable, "-c", "from synth_assets.cli.app import main; main()"]

pytestmark = [pytest.mark.integration, pytest.mark.slow]
needs_postgres = pytest.mark.skipif(shutil.which("initdb") is None, reason="PostgreSQL is not installed")


@pytest.fixture
def port() -> Iterator[int]:
    """Start Postgres with the two databases of the containers. Postgres refuses to run as root."""
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - for another user
        data, password = Path(folder) / "data", Path(folder) / "password"
        password.write_text(PASSWORD)
        data.mkdir()
        shutil.chown(data, user)

        def run(*command: str) -> None:
            subprocess.run(command, check=True, capture_output=True, user=user, env=client(port), cwd="/")

        run("initdb", "-D", str(data), "-U", "synth", "-A", "scram-sha-256", f"--pwfile={password}")
        run(
            "pg_ctl", "-D", str(data), "-w", "-l", str(data / "log"), "-o", f"-p {port} -k {data} -h 127.0.0.1", "start"
        )
        try:
            for database in ("dagster", "mlflow"):
                run("createdb", "-h", "127.0.0.1", database)
            yield port
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")


def client(port: int) -> dict[str, str]:
    return {**os.environ, "PGPASSWORD": PASSWORD, "PGUSER": "synth", "PGPORT": str(port)}


def tables(port: int, database: str) -> set[str]:
    query = "select tablename from pg_tables where schemaname = 'public'"
    command = ["psql", "-h", "127.0.0.1", "-At", "-c", query, database]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, env=client(port)).stdout.split())


@needs_postgres
def test_a_command_in_a_container_uses_its_postgres(port: int, own_home: Path, tmp_path: Path) -> None:
    settings = tmp_path / "docker"
    shutil.copytree(PROJECT / "docker", settings)
    text = (settings / "dagster.yaml").read_text().replace("/var/lib/synth", str(own_home))
    (settings / "dagster.yaml").write_text(text)
    environment = {
        **client(port),
        "SYNTH_HOME": str(own_home),
        "DAGSTER_HOME": str(settings),
        "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://synth@127.0.0.1:{port}/dagster",
        "MLFLOW_TRACKING_URI": f"postgresql+psycopg2://synth@127.0.0.1:{port}/mlflow",
    }
    for arguments in (["status"], ["run", "--yes", "--select", "key:base_model"]):
        result = subprocess.run(
            [*SYNTH, *arguments], check=False, capture_output=True, text=True, env=environment, timeout=300
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert PASSWORD not in result.stdout + result.stderr
    assert (settings / "dagster.yaml").read_text() == text
    assert {path.name for path in settings.iterdir()} == {path.name for path in (PROJECT / "docker").iterdir()}
    assert {"runs", "event_logs"} <= tables(port, "dagster")
    assert not (own_home / "dagster" / "history").exists()


def status(port: int, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/server_info", headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_webserver_of_the_containers_is_guarded(own_home: Path) -> None:
    """The code server is unreachable here; the UI responds anyway."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["webserver", "--host", "127.0.0.1", "--port", str(port), "--workspace", "docker/workspace.yaml"]
    environment = {**os.environ, "SYNTH_UI_HOSTS": "dagster.internal"}
    with subprocess.Popen([*SYNTH, *command], cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            limit = time.monotonic() + 240
            while True:
                with suppress(OSError):
                    assert status(port, f"127.0.0.1:{port}") == 200
                    break
                assert process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.5)
            assert status(port, "dagster.internal") == 200
            assert status(port, "evil.example") == 403
        finally:
            process.terminate()
