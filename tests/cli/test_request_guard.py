"""Edge cases of the request guard, without a server."""

import asyncio
from typing import Any

import pytest

from synth_assets.cli.request_guard import RequestGuard, allowed_hosts

HOSTS = allowed_hosts(3000, ["dagster.internal", "other.internal:8443"])


@pytest.mark.parametrize(
    ("names", "added"),
    [
        (["dagster.internal"], {"dagster.internal", "dagster.internal:3000"}),
        ([" Dagster.Internal:80 "], {"dagster.internal:80"}),
        (["[::2]"], {"[::2]", "[::2]:3000"}),
        ([], set()),
    ],
)
def test_allowed_hosts_are_the_loopback_names_and_added_names(names: list[str], added: set[str]) -> None:
    assert allowed_hosts(3000, names) == {"127.0.0.1:3000", "localhost:3000", "[::1]:3000"} | added
    assert "localhost" in allowed_hosts(80)


@pytest.mark.parametrize("name", ["*", "*.internal", "http://dagster.internal", "a/b", "a b", "a:b", "", "a:123456"])
def test_an_invalid_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="an allowed host must be a name or name:port"):
        allowed_hosts(3000, [name])


def ask(kind: str = "http", method: str = "GET", path: str = "/", query: str = "", **headers: str) -> int:
    """Return the status of the response: 200 from the application, 0 for a websocket closed before it is accepted."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"DENY")]})

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI
        sent.append(message)

    async def receive() -> Any:  # noqa: ANN401 - ASGI
        raise AssertionError("the guard must not read the body")

    fields = {"host": "localhost:3000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), part.encode()) for name, value in fields.items() for part in value.split("\n") if value]
    scope = {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": pairs}
    asyncio.run(RequestGuard(app, HOSTS)(scope, receive, send))
    if sent[0]["type"] == "websocket.close":
        return 0
    names = [name for name, _ in sent[0].get("headers", [])]
    assert names.count(b"x-frame-options") == 1
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, {}),
        (200, {"host": "LocalHost:3000"}),
        (403, {"host": "localhost:3000."}),
        (403, {"host": "localhost.:3000"}),
        (403, {"host": "localhost"}),
        (403, {"host": ""}),
        (400, {"host": "localhost:3000\nevil.example"}),
        (200, {"host": "other.internal:8443", "origin": "https://other.internal:8443"}),
        (403, {"host": "other.internal"}),
        (400, {"origin": "http://localhost:3000\nhttps://evil.example"}),
        (403, {"origin": "http://user@localhost:3000"}),
        (403, {"origin": "ftp://localhost:3000"}),
        (403, {"origin": "http://[localhost:3000"}),
        (200, {"referer": "http://localhost:3000/runs?x=http://evil.example"}),
        (403, {"referer": "http://evil.example/http://localhost:3000/"}),
        (200, {"method": "HEAD"}),
        (415, {"method": "POST"}),
        (415, {"method": "DELETE"}),
        (200, {"method": "POST", "content_type": "Application/JSON; charset=utf-8"}),
        (200, {"method": "POST", "content_type": "application/graphql"}),
        (415, {"method": "POST", "content_type": "application/json, text/plain"}),
        (400, {"method": "POST", "content_type": "application/json\ntext/plain"}),
        (200, {"path": "/graphql"}),
        (200, {"path": "/graphql", "query": "query={a}"}),
        (200, {"path": "/graphql", "query": "query=fragment%20f%20on%20T%20{a}"}),
        (405, {"path": "/graphql/", "query": "query=mutation{a}"}),
        (405, {"path": "/prefix/graphql", "query": "query=%23{a}%0Amutation{a}"}),
        (405, {"path": "/graphql", "query": "query=subscription{a}"}),
        (400, {"path": "/graphql", "query": "query={"}),
        (400, {"path": "/graphql", "query": "query=" + "{a" * 5_000}),
        (200, {"path": "/assets", "query": "query=mutation{a}"}),
        (0, {"kind": "websocket", "origin": "null"}),
    ],
)
def test_status_of_a_request(status: int, fields: dict[str, str]) -> None:
    assert ask(**fields) == status
