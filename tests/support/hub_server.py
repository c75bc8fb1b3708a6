"""A stand-in of the hub's HTTP API: repositories, commits of regular and LFS files, and downloads by revision.

Implements what huggingface_hub 2.4 asks for in `create_repo`, `upload_folder` and `snapshot_download` without Xet.
Files of up to REGULAR_BYTES are part of a commit, larger ones are uploaded as LFS objects first, as on the hub.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REGULAR_BYTES = 1_000
TOKEN = "hf_writer"  # noqa: S105 - of the stand-in

Files = dict[str, bytes]


@dataclass
class HubState:
    """The repositories: name -> commits, oldest first; the content of LFS objects; and what clients asked for."""

    commits: dict[str, list[tuple[str, Files]]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    corrupt: str = ""  # name of a file that downloads return with another content

    def files(self, name: str, revision: str) -> tuple[str, Files]:
        """Return commit and files of a revision. Raises KeyError if there is none."""
        commits = self.commits[name]
        return commits[-1] if revision == "main" else next(entry for entry in commits if entry[0] == revision)

    def commit(self, name: str, lines: list[dict]) -> str:
        """Add a commit of the operations in a request; return its id."""
        files = dict(self.files(name, "main")[1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        return self.add(name, files)

    def add(self, name: str, files: Files) -> str:
        """Add a commit with these files; return its id."""
        commits = self.commits.setdefault(name, [])
        seed = json.dumps([len(commits), *sorted((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())])  # noqa: S324
        commits.append((hashlib.sha1(seed.encode()).hexdigest(), files))  # noqa: S324 - git's hash
        return commits[-1][0]


class HubHandler(BaseHTTPRequestHandler):
    """Answers requests from the state of its server."""

    @property
    def state(self) -> HubState:
        return self.server.state  # pyright: ignore[reportAttributeAccessIssue]

    def handle_request(self) -> None:
        path = urlsplit(self.path).path
        self.state.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "/objects/" not in path:
            self.reply(403 if self.headers.get("Authorization") else 401, {"error": "no access"})
            return
        parts = path.strip("/").split("/")
        try:
            self.route(parts, body)
        except (KeyError, StopIteration):
            self.reply(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Handle every method (`do_GET`, `do_POST`, ...) in one place."""
        if name.startswith("do_"):
            return self.handle_request
        raise AttributeError(name)

    def route(self, parts: list[str], body: bytes) -> None:
        if parts[:3] == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif parts[:2] == ["api", "validate-yaml"]:
            self.reply(200, {"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"]:
            self.models("/".join(parts[2:4]), parts[4:], body)
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            self.batch(json.loads(body))
        elif parts[0] == "objects":
            self.state.objects[parts[1]] = body
            self.reply(200, {})
        elif "resolve" in parts:
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.reply(404, {"error": self.path})

    def create(self, request: dict) -> None:
        name = "/".join(filter(None, [request.get("organization") or "owner", request["name"]]))
        if name in self.state.commits:
            self.reply(409, {"error": "exists", "url": f"{self.endpoint}/{name}"})
            return
        self.state.private[name] = bool(request.get("private") or request.get("visibility") == "private")
        self.state.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.reply(200, {"url": f"{self.endpoint}/{name}", "name": name})

    def models(self, name: str, rest: list[str], body: bytes) -> None:
        what, revision = [*rest, "revision", "main"][:2] if rest else ("revision", "main")
        commit, files = self.state.files(name, revision)
        if what == "preupload":
            asked = json.loads(body)["files"]
            modes = [
                {
                    "path": entry["path"],
                    "uploadMode": "regular" if entry["size"] <= REGULAR_BYTES else "lfs",
                    "shouldIgnore": False,
                }
                for entry in asked
            ]
            self.reply(200, {"files": modes})
        elif what == "commit":
            oid = self.state.commit(name, [json.loads(line) for line in body.splitlines()])
            self.reply(200, {"commitOid": oid, "commitUrl": f"{self.endpoint}/{name}/commit/{oid}", "success": True})
        elif what == "tree":
            self.reply(200, [self.entry(path, content) for path, content in sorted(files.items())])
        else:
            siblings = [{"rfilename": path} for path in sorted(files)]
            self.reply(200, {"id": name, "sha": commit, "siblings": siblings, "private": self.state.private[name]})

    def entry(self, path: str, content: bytes) -> dict:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's hash
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        large = {"lfs": lfs} if len(content) > REGULAR_BYTES else {}
        return {"type": "file", "path": path, "size": len(content), "oid": oid, **large}

    def batch(self, request: dict) -> None:
        objects = [
            {**entry, "actions": {"upload": {"href": f"{self.endpoint}/objects/{entry['oid']}"}}}
            for entry in request["objects"]
        ]
        self.reply(200, {"transfer": "basic", "objects": objects})

    def resolve(self, name: str, revision: str, path: str) -> None:
        commit, files = self.state.files(name, revision)
        content = files[path] if path != self.state.corrupt else b"x" * len(files[path])
        tag = hashlib.sha256(content).hexdigest()
        self.send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": commit, "X-Linked-Size": str(len(content))})

    @property
    def endpoint(self) -> str:
        return f"http://{self.headers['Host']}"

    def reply(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


@contextmanager
def serving_hub() -> Iterator[tuple[str, HubState]]:
    """Serve a hub; yield its address, for HF_ENDPOINT, and its state."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.state = HubState()  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.state  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
