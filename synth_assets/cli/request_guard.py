"""ASGI middleware that rejects cross-site requests (CSRF, DNS rebinding) to a server on this machine.

Dagster's webserver has no login and accepts mutations by GET, by form POST and with any Host or Origin header, so any
page in the user's browser could start or delete runs. The middleware accepts requests of the server's own pages, of
programs (which send neither Origin nor Sec-Fetch-Site), and links that a user follows.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
HOST = re.compile(r"(?P<name>[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?P<port>:[0-9]{1,5})?")
SAFE_METHODS = ("GET", "HEAD")
JSON_TYPES = (
    "application/json",
    "application/graphql",
)  # browsers send a preflight request first
OWN_SITES = ("same-origin", "none")  # none: a typed address or a bookmark
MAX_SHOWN_CHARACTERS = 100  # of a header in a message
PROTECTION_HEADERS = {
    b"content-security-policy": b"frame-ancestors 'self'",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
}
"""Headers of every response: other sites may not frame, embed or sniff it."""


class Refusal(NamedTuple):
    """Status code and reason of a refused request."""

    status: int
    reason: str


def allowed_hosts(port: int, names: Iterable[str] = ()) -> frozenset[str]:
    """Return the Host headers to accept: the loopback names with `port`, and `names`.

    Args:
        port: the port of the server.
        names: "name" (accepted with `port`, or without one as behind a proxy) or "name:port".

    Raises:
        ValueError: a name is a pattern, an address with a scheme, or not a valid host.
    """
    hosts = {f"{name}:{port}" for name in LOOPBACK_NAMES}
    if port == 80:
        hosts.update(LOOPBACK_NAMES)
    for name in (name.strip().lower() for name in names):
        match = HOST.fullmatch(name)
        if match is None:
            raise ValueError(
                f"an allowed host must be a name or name:port without scheme, path or wildcard, got {name!r}"
            )
        hosts.update({name} if match["port"] else {name, f"{name}:{port}"})
    return frozenset(hosts)


class RequestGuard:
    """ASGI middleware that guards an application against cross-site requests."""

    def __init__(self, app: App, hosts: frozenset[str]) -> None:
        """Guard `app` and accept the Host headers `hosts`."""
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass an allowed request on; answer others with 4xx, or close the websocket before it is accepted."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is None:
            await self.app(scope, receive, _protected(send))
            return
        kind = scope.get("method", "a websocket")
        logging.getLogger(__name__).warning("Refused %s at %s: %s", kind, _shown(scope["path"]), refusal.reason)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), *PROTECTION_HEADERS.items()]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": f"{refusal.reason}\n".encode()})

    def refusal(self, scope: Message) -> Refusal | None:
        """Return the refusal of a request, None if it is allowed."""
        headers = _headers(scope)
        if repeated := [name for name in ("host", "origin", "content-type") if len(headers.get(name, [])) > 1]:
            return Refusal(400, f"the header {repeated[0]} must occur once, got several")
        host = _first(headers, "host").lower()
        if host not in self.hosts:
            allowed = ", ".join(sorted(self.hosts))
            return Refusal(
                403,
                f"the Host header must be one of {allowed}, got {_shown(host)}. Add a name of your own with "
                "`synth ui --allow-host NAME` or SYNTH_UI_HOSTS",
            )
        method = scope.get("method", "GET")
        return (
            _foreign(headers, host, method, scope["type"])
            or (None if method in SAFE_METHODS else _form(headers))
            or _mutation(scope)
        )


def _foreign(headers: dict[str, list[str]], host: str, method: str, kind: str) -> Refusal | None:
    """Refuse a request that another site made the browser send, except a link that a user follows."""
    origin, referer, site = (_first(headers, name) for name in ("origin", "referer", "sec-fetch-site"))
    if origin and _host_of(origin) != host:
        return Refusal(403, f"the Origin header must name {host}, got {_shown(origin)}")
    follows_link = (
        kind == "http"
        and method in SAFE_METHODS
        and (_first(headers, "sec-fetch-mode"), _first(headers, "sec-fetch-dest")) == ("navigate", "document")
    )
    if site and site not in OWN_SITES and not follows_link:
        return Refusal(403, f"requests from other sites are refused (Sec-Fetch-Site: {_shown(site)})")
    if referer and not origin and _host_of(referer) != host and not follows_link:
        return Refusal(403, f"the Referer header must name {host}, got {_shown(str(_host_of(referer)))}")
    return None


def _form(headers: dict[str, list[str]]) -> Refusal | None:
    """Refuse content types that a browser sends across sites without a preflight request."""
    kind = _first(headers, "content-type").partition(";")[0].strip().lower()
    if kind in JSON_TYPES:
        return None
    return Refusal(415, f"the Content-Type must be application/json, got {_shown(kind) if kind else 'none'}")


def _mutation(scope: Message) -> Refusal | None:
    """Refuse a GET request to GraphQL that contains more than queries."""
    if scope["type"] != "http" or scope["method"] not in SAFE_METHODS:
        return None
    if scope["path"].rstrip("/").rpartition("/")[2].lower() != "graphql":
        return None
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    for document in parse_qs(scope["query_string"].decode("latin-1")).get("query", []):
        try:
            definitions = parse(document).definitions
        except (GraphQLError, RecursionError):
            return Refusal(400, "the GraphQL query is not valid")
        operations = [node.operation for node in definitions if isinstance(node, OperationDefinitionNode)]
        if any(operation is not OperationType.QUERY for operation in operations):
            return Refusal(405, "mutations by GET are refused; send them by POST as application/json")
    return None


def _protected(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])} - {b"content-security-policy"}
            added = [(name, value) for name, value in PROTECTION_HEADERS.items() if name not in present]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return send_with_headers


def _headers(scope: Message) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return headers


def _first(headers: dict[str, list[str]], name: str) -> str:
    return headers.get(name, [""])[0]


def _host_of(address: str) -> str | None:
    """Return host and port of an http address, as in a Host header; None for `null` and invalid addresses."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _shown(value: str) -> str:
    return repr(value[:MAX_SHOWN_CHARACTERS])
