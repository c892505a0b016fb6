"""Child processes that never outlive their test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent


@contextmanager
def running(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code that can import the modules beside the tests; kill it in the end."""
    folders = [str(TESTS), str(TESTS / "embeddings"), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a child prints; if it died instead, fail with its last words."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, stderr = process.communicate()
        raise AssertionError(f"the child ended with {process.returncode}: {stderr}")
    return line.strip()


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a child to end by itself and return its exit code and what it complained of."""
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr
