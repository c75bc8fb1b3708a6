"""Interactive pages of a home beside the Dagster UI: rows and playground, with their scripts and styles.

They stand behind the request guard, as the UI does, and load nothing from other servers.
"""

import functools
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from resources.deployment import person
from resources.storage import HOME_PAGES
from synth_assets.reporting.escaping import metadata_line

if TYPE_CHECKING:
    import jinja2
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

STATIC = f"{HOME_PAGES}static"
FILES = Path(__file__).with_name("static")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
EXPECTED_ERRORS = (ValueError, KeyError, OSError, RuntimeError)  # shown to the person in front of the page
MAX_BODY_BYTES = 1_000_000
REVIEWER_COOKIE = "synth_reviewer"
MAX_NAME_CHARACTERS = 60

Answer = Callable[["Request"], Awaitable["Response"]]


class HomeApps:
    """ASGI middleware that answers requests below the addresses of its routes; the rest goes to `app`."""

    def __init__(self, app: "ASGIApp", routes: "Sequence[BaseRoute]") -> None:
        """Serve `routes`, whose paths start with HOME_PAGES, and the static files of the pages."""
        from starlette.applications import Starlette
        from starlette.routing import Mount
        from starlette.staticfiles import StaticFiles

        mounted = [*routes, Mount(STATIC, StaticFiles(directory=FILES))]
        self.app = app
        self.prefixes = tuple({_prefix(route) for route in mounted})
        self.pages = Starlette(routes=mounted)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        own = scope["type"] == "http" and _first_parts(scope["path"]) in self.prefixes
        await (self.pages if own else self.app)(scope, receive, send)


def render(template: str, **values: object) -> "Response":
    """Return a page; every text in it is escaped."""
    from starlette.responses import HTMLResponse

    return HTMLResponse(html(template, **values), headers=HEADERS)


def html(template: str, **values: object) -> str:
    """Return the text of a page; every text in it is escaped."""
    return _environment().get_template(template).render(**values)


def showing(work: "Callable[[Request], Response]") -> Answer:
    """Return a handler that answers with the page that `work` returns, computed in a thread.

    An expected error is answered with status 400 and its message as plain text.
    """

    async def show(request: "Request") -> "Response":
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import PlainTextResponse

        try:
            return await run_in_threadpool(work, request)
        except EXPECTED_ERRORS as error:
            return PlainTextResponse(_message(error), 400, headers=HEADERS)

    return show


def answering(work: "Callable[[Request], object]") -> Answer:
    """Return a handler that answers with the JSON that `work` returns, computed in a thread.

    An expected error is answered with status 400 and its message as the field `error`.
    """

    async def answer(request: "Request") -> "Response":
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        if request.method == "POST":
            await read_body(request)
        try:
            content, status = await run_in_threadpool(work, request), 200
        except EXPECTED_ERRORS as error:
            content, status = {"error": _message(error)}, 400
        return JSONResponse(content, status, headers=HEADERS)

    return answer


def _message(error: Exception) -> str:
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return message or type(error).__name__


async def read_body(request: "Request") -> None:
    """Read the body of a request into `request.state.body`; longer than MAX_BODY_BYTES it counts as empty."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_BODY_BYTES:
            received.clear()
            break
    request.state.body = bytes(received)


def json_body(request: "Request") -> Mapping[str, Any]:
    """Return the JSON object in the body of a request. Raises ValueError if it is none."""
    try:
        body = json.loads(request.state.body)
    except ValueError as error:
        raise ValueError(f"the body must be a JSON object of at most {MAX_BODY_BYTES:,} bytes: {error}") from error
    if not isinstance(body, dict):
        raise ValueError(f"the body must be a JSON object, got {type(body).__name__}")
    return body


def text_of(body: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a text field of a body. Raises ValueError if it is no text."""
    value = body.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, got {type(value).__name__}")
    return value


def number_of(body: Mapping[str, Any], name: str) -> float:
    """Return a number field of a body. Raises ValueError if it is none."""
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return value


def reviewer_of(request: "Request") -> str:
    """Return the name that a person gave on a page, from the cookie, or else the user of this process."""
    return stored_name(unquote(request.cookies.get(REVIEWER_COOKIE, "")))


def stored_name(name: str) -> str:
    """Return the name of a person as stored: the given one, or the user of this process."""
    return metadata_line(name.strip(), MAX_NAME_CHARACTERS) or person()


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("synth_assets.cli"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _prefix(route: "BaseRoute") -> str:
    return _first_parts(str(getattr(route, "path", "")))


def _first_parts(path: str) -> str:
    """Return the first two parts of a path: /home/rows of /home/rows/why."""
    return "/".join(path.split("/")[:3])
