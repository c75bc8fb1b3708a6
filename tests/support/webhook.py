"""A webhook server that records what it receives."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from resources.webhook import Webhook


class Service:
    """An HTTP server that records the requests and responds with `status`, which a test may change."""

    def __init__(self, status: int) -> None:
        outer = self
        self.status = status
        self.received: list[dict[str, object]] = []
        self.keys: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers["Idempotency-Key"])
                self.send_response(outer.status)
                if 300 <= outer.status < 400:
                    self.send_header("Location", f"http://127.0.0.1:{outer.server.server_port}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.webhook = Webhook(url=f"http://127.0.0.1:{self.server.server_port}/hook")

    def __enter__(self) -> "Service":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
