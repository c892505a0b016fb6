"""A worker that is started again when it dies or hangs, and finds out of which image."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from typing import IO, Any, NoReturn

from trustvlm.bulk.parts import FinishedPart, Part
from trustvlm.bulk.worker import Compute, Loader, Probe, receive, send
from trustvlm.exceptions import BulkError, TrustVLMWarning
from trustvlm.images.kinds import refusal
from trustvlm.images.references import UnreadableImage

__all__ = ["SILENCE", "GuardedWorker"]

SILENCE = 120.0


class _DiedError(Exception):
    """The worker is gone; the message says how."""


class GuardedWorker:
    """Computes parts in a process of its own; a context manager.

    A part whose process dies is tried again. If it dies again and again, its images are tried one
    by one, and those that kill the process each time become rows with an error, of kind `fatal`. A
    process that gives no sign of life is killed; one in which decoders hang ends after its part.

    Parameters
    ----------
    loader
        Makes the model in the worker; must be picklable.
    retries
        How often a part, and then an image, is tried after the first time.
    silence
        Seconds without a sign of life after which the process is killed.
    """

    def __init__(self, loader: Loader, retries: int = 2, silence: float = SILENCE) -> None:
        self._loader = loader
        self._retries = retries
        self._silence = silence
        self._answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self.notes: list[str] = []

    def __enter__(self) -> GuardedWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def compute(self, part: Part) -> FinishedPart:
        """Return the verdicts on a part.

        Raises
        ------
        TrustVLMError
            If the model cannot be loaded or the input makes no sense.
        BulkError
            If the worker dies of this part, but of none of its images alone.
        """
        fatal: dict[int, UnreadableImage] = {}
        for _ in range(2):
            for attempt in range(self._retries + 1):
                try:
                    return self._computed(part, fatal)
                except _DiedError as death:
                    how = str(death)
                    warnings.warn(
                        f"a worker died in {part.shard.name} ({how}); attempt {attempt + 1} of "
                        f"{self._retries + 1}",
                        TrustVLMWarning,
                        stacklevel=2,
                    )
            if fatal:
                break
            fatal = self._find_fatal(part)
            if not fatal:
                break
        raise BulkError(
            f"Images {part.start + 1} to {part.start + part.size} of {part.shard.name!r} stop the "
            f"worker each time ({how}), but none of them does so alone. It may lack memory: use a "
            "smaller --batch-size in a new folder. What is done so far is kept."
        )

    def close(self) -> None:
        """Stop the worker."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            assert process.stdin is not None  # noqa: S101
            with suppress(OSError):
                process.stdin.close()

    def _computed(self, part: Part, fatal: dict[int, UnreadableImage]) -> FinishedPart:
        self._ask(Compute(part, fatal))
        finished, n_hanging = self._answer(self._silence)[1]
        assert isinstance(finished, FinishedPart)  # noqa: S101
        if n_hanging:
            # Its threads may keep a core busy for ever, and it has only so many to lose.
            self.close()
        return finished

    def _find_fatal(self, part: Part) -> dict[int, UnreadableImage]:
        fatal: dict[int, UnreadableImage] = {}
        position, deaths = 0, 0
        while position < part.size:
            try:
                self._ask(Probe(part, position))
                while True:
                    kind, passed = self._answer(self._silence)
                    if kind == "probed":
                        return fatal
                    position, deaths = passed + 1, 0
            except _DiedError as death:
                deaths += 1
                if deaths > self._retries:
                    fatal[position] = self._replacement(part, position, deaths, str(death))
                    position, deaths = position + 1, 0
        return fatal

    def _replacement(self, part: Part, position: int, deaths: int, how: str) -> UnreadableImage:
        # Its name is all that is read of it here, or nothing, if even that is what kills.
        image = next(part.shard.images(part.start + position), None)
        path = f"{part.shard.name}#{part.start + position}" if image is None else image.path
        what = f"it stopped the process that read it {deaths} times ({how})"
        return UnreadableImage.of(path, refusal("fatal", path, what, "Leave it out"))

    def _ask(self, request: Compute | Probe) -> None:
        if self._process is None:
            self._start()
        self._send(request)

    def _send(self, message: Any) -> None:
        assert self._process is not None  # noqa: S101
        assert self._process.stdin is not None  # noqa: S101
        try:
            send(self._process.stdin, message)
        except BrokenPipeError:
            self._died("")

    def _answer(self, silence: float | None = None) -> tuple[str, Any]:
        """Return the next answer; raise what the worker raised, or say how it died."""
        assert self._process is not None  # noqa: S101
        how = ""
        while True:
            try:
                kind, content = self._answers.get(timeout=silence)
            except queue.Empty:
                self._process.kill()
                self._died(f"no sign of life for {silence:g} s")
            if kind == "alive":
                continue
            if kind == "gone":
                self._died(how)
            elif kind == "warning":
                warnings.warn(content, TrustVLMWarning, stacklevel=2)
            elif kind == "refused":
                self.close()
                raise content
            elif kind == "dying":
                how = content
            else:
                return kind, content

    def _died(self, how: str) -> NoReturn:
        assert self._process is not None  # noqa: S101
        code = self._process.wait()
        self.close()
        if not how:
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise _DiedError(how)

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from trustvlm.bulk.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._answers = queue.SimpleQueue()
        assert self._process.stdout is not None  # noqa: S101
        threading.Thread(
            target=_receive_all, args=(self._process.stdout, self._answers), daemon=True
        ).start()
        try:
            self._send(self._loader)
            self.notes = self._answer()[1]
        except _DiedError as death:
            raise BulkError(
                f"The worker died while it loaded the model ({death}). It may lack memory."
            ) from death


def _receive_all(stream: IO[bytes], answers: queue.SimpleQueue[tuple[str, Any]]) -> None:
    with stream:
        while True:
            try:
                answers.put(receive(stream))
            except (EOFError, pickle.UnpicklingError):
                answers.put(("gone", None))
                return
