"""Serve the index page, reports and cards of a home beside the Dagster UI, read-only."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from resources.storage import HOME_PAGES
from synth_assets.cli.index_page import INDEX
from synth_assets.cli.markdown_page import markdown_page

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

FOLDERS = ("reports", "cards")
SUFFIXES = frozenset({".html", ".md", ".png", ".csv", ".json"})
POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class HomeFiles:
    """ASGI middleware that answers GET requests below HOME_PAGES with files of the home; the rest goes to `app`."""

    def __init__(self, app: "ASGIApp", home: Path, refresh: Callable[[], object]) -> None:
        """Serve files of `home`; call `refresh` before the index page is served."""
        self.app = app
        self.home = home.resolve()
        self.refresh = refresh

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith(HOME_PAGES):
            await self.app(scope, receive, send)
            return
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse

        name = scope["path"].removeprefix(HOME_PAGES) or INDEX
        if name == INDEX:
            await run_in_threadpool(self.refresh)
        path = self.file(name)
        if scope["method"] not in {"GET", "HEAD"} or path is None:
            await PlainTextResponse(f"{name} is no page of this home", status_code=404)(scope, receive, send)
            return
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        if path.suffix == ".md":
            answer: Response = HTMLResponse(await run_in_threadpool(markdown_page, path), headers=headers)
        else:
            answer = FileResponse(path, headers=headers)
        await answer(scope, receive, send)

    def file(self, name: str) -> Path | None:
        """Return the file that a name below HOME_PAGES stands for; None if it may not be served or does not exist."""
        path = (self.home / name).resolve()
        if not path.is_relative_to(self.home) or path.suffix not in SUFFIXES or not path.is_file():
            return None
        inside = path.relative_to(self.home)
        return path if str(inside) == INDEX or inside.parts[0] in FOLDERS else None
