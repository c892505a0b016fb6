"""A service in this process, and one in a process of its own, for tests."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trustvlm.pipeline.artefact import read_artefact
from trustvlm.serve.server import create_app, open_context
from trustvlm.serve.settings import Keys, Settings
from trustvlm.serve.telemetry import Log


@contextmanager
def client_of(*models: Path, keys: Sequence[str] = (), **settings: object) -> Iterator[object]:
    """A client of a service in this process; `client.log` holds what it logged."""
    from starlette.testclient import TestClient

    folder, stream = Path(tempfile.mkdtemp()), io.StringIO()
    settings = {"feedback": str(folder / "feedback.sqlite"), **settings}
    app = create_app(open_context(models, Settings(**settings), Keys(keys), Log(stream)))
    address = "http://localhost"
    with TestClient(app, base_url=address, raise_server_exceptions=False) as client:
        client.context = app.state.context
        client.log = stream
        yield client
    shutil.rmtree(folder)


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until_alive(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a service answers; fail with its log if it ended instead."""
    for _ in range(6000):
        try:
            urllib.request.urlopen(f"{address}/healthz", timeout=60).close()
        except OSError:
            if process.poll() is not None:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the service does not start")


@contextmanager
def service_of(
    *arguments: object, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process of `trustvlm serve` and its address; it is killed in the end.

    It logs to a file, because a pipe that nobody empties would make it wait.
    """
    port = free_port()
    command = [sys.executable, "-m", "trustvlm", "serve", *arguments, "--port", port]
    with log.open("wb") as written:
        process = subprocess.Popen(
            list(map(str, command)), stderr=written, env={**os.environ, **(environment or {})}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until_alive(address, process, log)
        yield process, address
    finally:
        process.kill()
        process.wait()


def events(text: str) -> list[dict[str, object]]:
    """The events of a log."""
    return [json.loads(line) for line in text.splitlines()]


def assert_same_model(one: Path, other: Path) -> None:
    """Assert that two models differ in nothing but when they were made."""
    (first, arrays), (second, others) = read_artefact(one), read_artefact(other)
    for manifest in (first, second):
        manifest.pop("manifest_sha256")
        manifest.pop("created_at")
        (manifest["calibration"] or {}).pop("created_at", None)
    assert first == second
    assert {n: a.tobytes() for n, a in arrays.items()} == {
        n: a.tobytes() for n, a in others.items()
    }
