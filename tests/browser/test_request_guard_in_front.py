"""The request guard in front of both UIs: cross-site requests are refused, requests of the UIs' own pages pass."""

import base64
import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

pytestmark = pytest.mark.browser

LOCATION = """
import dagster as dg

batches = dg.DynamicPartitionsDefinition(name="batches")

class Rates(dg.Config):
    learning_rate: float = 1.0

@dg.asset(partitions_def=batches)
def thing(config: Rates):
    pass

defs = dg.Definitions([thing], jobs=[dg.define_asset_job("job", [thing])])
"""
WORKSPACE = "load_from:\n  - python_file: {relative_path: one_asset.py, location_name: synth_assets}\n"
JSON = {"Content-Type": "application/json"}
ADD = """mutation {addDynamicPartition(repositorySelector: {repositoryName: "__repository__",
    repositoryLocationName: "synth_assets"}, partitionsDefName: "batches", partitionKey: "BATCH") {__typename}}"""
MUTATIONS = {
    "addDynamicPartition": ADD.replace("BATCH", "by-foe"),
    "launchRun": """mutation {launchRun(executionParams: {selector: {repositoryName: "__repository__",
        repositoryLocationName: "synth_assets", jobName: "job"}}) {__typename}}""",
    "deleteRun": 'mutation {deleteRun(runId: "00000000-0000-0000-0000-000000000000") {__typename}}',
    "wipeAssets": 'mutation {wipeAssets(assetPartitionRanges: [{assetKey: {path: ["thing"]}}]) {__typename}}',
}
VALIDATE = """{isPipelineConfigValid(pipeline: {repositoryName: "__repository__",
    repositoryLocationName: "synth_assets", pipelineName: "job"}, mode: "default",
    runConfigData: "ops: {thing: {config: {learning_rate: 2e-4}}}") {__typename}}"""
PARTITIONS = '{partitionSetOrError: assetNodeOrError(assetKey: {path: ["thing"]}) {... on AssetNode {partitionKeys}}}'


class Server:
    """A UI behind a plain connection that sends exactly the headers of a test."""

    def __init__(self, url: str) -> None:
        self.port = urlsplit(url).port or 0
        self.host = f"127.0.0.1:{self.port}"

    def __call__(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": self.host, **(headers or {})}.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body.encode())))
            connection.endheaders(body.encode() if body is not None else None)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
        finally:
            connection.close()

    def post(self, query: str, **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text, _ = self("POST", "/graphql", json.dumps({"query": query}), {**JSON, **named})
        return status, text

    def partitions(self) -> list[str]:
        status, text = self.post(PARTITIONS)
        assert status == 200, text
        return json.loads(text)["data"]["partitionSetOrError"]["partitionKeys"]


@pytest.fixture(scope="module")
def ui(
    start_ui: Callable[[Path, Path], AbstractContextManager[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "one_asset.py").write_text(LOCATION)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTH_UI_HOSTS", "dagster.internal")
        with start_ui(folder / "home", folder) as ui:
            yield ui


@pytest.fixture(scope="module")
def dagster(ui: Any) -> Server:  # noqa: ANN401 - from conftest.py
    return Server(ui.dagster)


@pytest.fixture(scope="module")
def mlflow(ui: Any) -> Server:  # noqa: ANN401 - from conftest.py
    return Server(ui.mlflow)


def test_the_ui_itself_works(dagster: Server) -> None:
    own = f"http://{dagster.host}"
    status, page, headers = dagster("GET", "/")
    assert status == 200
    assert "<html" in page
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in (headers.get_all("Content-Security-Policy") or [])
    for name, prefix in (("by-page", {"Origin": own, "Sec_Fetch_Site": "same-origin"}), ("by-program", {})):
        status, text = dagster.post(ADD.replace("BATCH", name), **prefix)
        assert (status, "AddDynamicPartitionSuccess" in text) == (200, True), text
    assert dagster.partitions() == ["by-page", "by-program"]
    assert dagster("GET", f"/graphql?query={quote('{version}')}")[0] == 200
    assert dagster("GET", "/graphql", headers={"Accept": "text/html", "Referer": f"{own}/runs"})[0] == 200
    assert dagster("GET", "/server_info", headers={"Host": f"LOCALHOST:{dagster.port}"})[0] == 200
    assert dagster("GET", "/server_info", headers={"Host": f"[::1]:{dagster.port}"})[0] == 200


def test_the_launchpad_takes_a_number_with_an_exponent(dagster: Server) -> None:
    text = dagster.post(VALIDATE)[1]
    assert "PipelineConfigValidationValid" in text, text


def test_a_link_from_another_site_opens_the_page(dagster: Server) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert dagster("GET", "/runs", headers={**followed, "Referer": "https://chat.example/"})[0] == 200
    assert dagster("GET", "/runs", headers={**followed, "Sec-Fetch-Dest": "iframe"})[0] == 403
    assert dagster("POST", "/graphql", "{}", {**followed, **JSON})[0] == 403


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutations_of_foreign_pages_are_refused(dagster: Server, mutation: str) -> None:
    query = MUTATIONS[mutation]
    before = dagster.partitions()
    body, form = json.dumps({"query": query}), f"query={quote(query)}"
    in_address = f"/graphql?query={quote(query)}"
    requests: list[tuple[int, str, str, str | None, Mapping[str, str]]] = [
        (405, "GET", in_address, None, {}),
        (405, "GET", in_address, None, {"Accept": "text/html"}),
        (405, "GET", f"/graphql?query={quote('{version}')}&query={quote(query)}", None, {}),
        (405, "GET", f"/graphql?query={quote('query A {version} ' + query)}&operationName=", None, {}),
        (405, "GET", f"/gr%61phql?query={quote(query)}", None, {}),
        (415, "POST", "/graphql", form, {"Content-Type": "application/x-www-form-urlencoded"}),
        (415, "POST", "/graphql", body, {"Content-Type": "text/plain"}),
        (415, "POST", "/graphql", body, {"Content-Type": "text/plain; application/json"}),
        (415, "POST", "/graphql", body, {"Content-Type": "multipart/form-data; boundary=x"}),
        (415, "POST", in_address, "", {}),
        (403, "POST", "/graphql", body, {**JSON, "Origin": "https://evil.example"}),
        (403, "POST", "/graphql", body, {**JSON, "Origin": "null"}),
        (403, "POST", "/graphql", body, {**JSON, "Origin": f"http://localhost:{dagster.port}"}),  # another name
        (403, "POST", "/graphql", body, {**JSON, "Origin": "http://127.0.0.1:8888"}),  # another server here
        (403, "POST", "/graphql", body, {**JSON, "Origin": f"http://127.0.0.1:{dagster.port}.evil.example"}),
        (403, "POST", "/graphql", body, {**JSON, "Referer": "https://evil.example/127.0.0.1"}),
        (403, "POST", "/graphql", body, {**JSON, "Sec-Fetch-Site": "cross-site"}),
        (403, "POST", "/graphql", body, {**JSON, "Sec-Fetch-Site": "same-site"}),
        (403, "POST", "/graphql", body, {**JSON, "Host": "evil.example"}),
        (403, "POST", "/graphql", body, {**JSON, "Host": f"evil.example:{dagster.port}"}),  # DNS rebinding
        (403, "POST", "/graphql", body, {**JSON, "Host": f"127.0.0.1.evil.example:{dagster.port}"}),
        (403, "POST", "/graphql", body, {**JSON, "Host": "127.0.0.1:1", "X-Forwarded-Host": dagster.host}),
        (403, "OPTIONS", "/graphql", None, {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}),
    ]
    for expected, method, path, content, headers in requests:
        status, text, sent = dagster(method, path, content, headers)
        assert status == expected, (method, path, headers, text)
        assert "Access-Control-Allow-Origin" not in sent
    assert dagster.partitions() == before


def test_reads_of_foreign_pages_are_refused(dagster: Server) -> None:
    for headers in (
        {"Host": f"evil.example:{dagster.port}"},
        {"Origin": "https://evil.example"},
        {"Referer": "https://evil.example/"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
    ):
        for path in ("/", "/server_info", f"/graphql?query={quote('{version}')}", "/logs/a.out"):
            assert dagster("GET", path, headers=headers)[0] == 403
    assert "--allow-host" in dagster("GET", "/", headers={"Host": "evil.example"})[1]
    assert dagster("POST", "/report_asset_materialization/thing", "", {"Content-Type": "text/plain"})[0] == 415


def test_a_name_that_the_user_adds_is_allowed(dagster: Server) -> None:
    for host, origin in (
        ("dagster.internal", "https://dagster.internal"),  # behind a proxy that ends TLS
        (f"dagster.internal:{dagster.port}", f"http://dagster.internal:{dagster.port}"),
    ):
        assert dagster.post("{version}", Host=host, Origin=origin)[0] == 200
        assert dagster.post("{version}", Host=host, Origin=f"http://{dagster.host}")[0] == 403
    assert dagster("GET", "/", headers={"Host": "dagster.internal:1"})[0] == 403


def handshake(server: Server, **headers: str) -> str:
    """Return the status line of the response to a websocket handshake."""
    fields = {"Host": server.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [
        "GET /graphql HTTP/1.1",
        *(f"{name}: {value}" for name, value in fields.items()),
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: graphql-ws",
    ]
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(4096).decode("latin-1").splitlines()[0]


def test_websockets_of_foreign_pages_are_refused(dagster: Server) -> None:
    assert " 101 " in handshake(dagster)
    assert " 101 " in handshake(dagster, Origin=f"http://{dagster.host}", Sec_Fetch_Site="same-origin")
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Host": f"evil.example:{dagster.port}", "Origin": f"http://evil.example:{dagster.port}"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert " 403 " in handshake(dagster, **headers)


def test_mlflow_refuses_foreign_hosts_and_origins(mlflow: Server) -> None:
    create, body = "/ajax-api/2.0/mlflow/experiments/create", '{"name": "by-%s"}'
    own = f"http://{mlflow.host}"
    assert mlflow("POST", create, body % "page", {**JSON, "Origin": own})[0] == 200
    assert mlflow("POST", create, body % "program", JSON)[0] == 200
    internal = {"Host": "dagster.internal", "Origin": "https://dagster.internal"}
    assert mlflow("POST", create, body % "proxy", {**JSON, **internal})[0] == 200
    for headers in (
        {"Host": f"evil.example:{mlflow.port}"},
        {"Host": "192.168.0.1:5000"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
    ):
        for kind in ("application/json", "text/plain"):
            status, text, sent = mlflow("POST", create, body % "foe", {"Content-Type": kind, **headers})
            assert status == 403, (headers, text)
            assert "evil.example" not in sent.get("Access-Control-Allow-Origin", "")
    assert mlflow("GET", "/", headers={"Host": f"evil.example:{mlflow.port}"})[0] == 403
    names = [
        e["name"]
        for e in json.loads(mlflow("GET", "/ajax-api/2.0/mlflow/experiments/search?max_results=50")[1])["experiments"]
    ]
    assert "by-page" in names
    assert "by-foe" not in names


def test_no_process_has_a_database_address_in_its_arguments(ui: Any) -> None:  # noqa: ANN401 - from conftest.py
    lines = [" ".join(process.cmdline()) for process in ui.descendants()]
    assert any("mlflow" in line for line in lines)
    assert [line for line in lines if "sqlite:" in line] == []
