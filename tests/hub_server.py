"""A stand-in of the model hub on this machine: as much of its protocol as a download needs.

It is no Hugging Face hub: what that does besides (Xet, redirects, rate limits) is not tested here.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running hub.

    Attributes
    ----------
    address
        For the variable HF_ENDPOINT.
    directories
        What each repository holds.
    gated
        Repositories whose files are sent to whoever has a token alone, as the real hub does; what
        is in them everybody learns.
    requests
        What was asked for, in order.
    sent
        Names of the files that were downloaded, in order.
    commit
        The only revision, which is also `main`, unless `revisions` has others.
    revisions
        Of each repository that has several: the commit and the directory that each name leads to,
        commits, tags and branches; one that is missing was deleted.
    """

    address: str
    directories: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    commit: str = COMMIT
    revisions: dict[str, dict[str, tuple[str, Path]]] = field(default_factory=dict)

    def resolve(self, repository: str, revision: str) -> tuple[str, Path] | None:
        """Return the commit that a name leads to, and what it holds."""
        if repository in self.revisions:
            return self.revisions[repository].get(revision)
        known = revision in ("main", COMMIT)
        return (COMMIT, self.directories[repository]) if known else None


@contextmanager
def serve(directories: Mapping[str, Path], *, silent: bool = False) -> Iterator[Hub]:
    """Run a hub; a silent one accepts connections and never answers."""
    stop = threading.Event()

    class Handler(_Handler):
        def handle(self) -> None:
            if silent:
                stop.wait()
            else:
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", dict(directories))
    Handler.hub = hub
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        self.hub.requests.append(self.path)
        path = self.path.split("?")[0].strip("/")
        parts = path.removeprefix("api/models/").split("/")
        repository = "/".join(parts[:2])
        revision = unquote(parts[3]) if len(parts) > 3 else "main"
        is_file = parts[2:3] == ["resolve"]
        has_token = "Authorization" in self.headers
        if repository not in self.hub.directories:
            self._refuse(404, "RepoNotFound")
        elif repository in self.hub.gated and is_file and not has_token:
            self._refuse(401, "GatedRepo")
        elif (target := self.hub.resolve(repository, revision)) is None:
            self._refuse(404, "RevisionNotFound")
        elif is_file:
            self._file(*target, "/".join(parts[4:]), body=body)
        elif parts[2:3] == ["tree"]:
            self._json([_entry(target[1], file) for file in _files(target[1])])
        else:
            commit, directory = target
            siblings = [{"rfilename": str(f.relative_to(directory))} for f in _files(directory)]
            self._json({"id": repository, "sha": commit, "siblings": siblings})

    def _file(self, commit: str, directory: Path, name: str, *, body: bool) -> None:
        content = (directory / name).read_bytes()
        entry = _entry(directory, directory / name)
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{entry.get("lfs", entry)["oid"]}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.hub.sent.append(name)
            self.wfile.write(content)

    def _json(self, values: Any) -> None:
        content = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file())


def _entry(directory: Path, file: Path) -> dict[str, Any]:
    """Describe a file: weights are known by their SHA-256, all others by git's SHA-1."""
    content = file.read_bytes()
    git = hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": str(file.relative_to(directory))}
    entry |= {"size": len(content), "oid": git}
    if file.suffix in (".safetensors", ".bin", ".msgpack"):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
    return entry
