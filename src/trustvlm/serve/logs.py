"""One JSON line per event, without anything of an image."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["Log"]


class Log:
    """Writes events as JSON lines.

    Parameters
    ----------
    stream
        Where to; standard error by default.

    Examples
    --------
    >>> import io
    >>> stream = io.StringIO()
    >>> Log(stream).event("started", port=8000)
    >>> json.loads(stream.getvalue())["event"]
    'started'
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def event(self, event: str, **facts: Any) -> None:
        """Write one event."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event, **facts}, ensure_ascii=False)
        stream = self._stream or sys.stderr
        stream.write(f"{line}\n")
        stream.flush()
