"""The process that computes: it may die of an image, and the one that asked does not.

Requests come as pickles on the standard input of `main`, and answers leave on its standard output.
Both ends are processes of one user on one machine.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trustvlm.bulk.computing import PartComputer
from trustvlm.bulk.parts import Part
from trustvlm.embeddings import ForgetfulStore
from trustvlm.embeddings.thread_pool import n_hanging
from trustvlm.exceptions import TrustVLMError, TrustVLMWarning
from trustvlm.images.references import UnreadableImage
from trustvlm.pipeline.predicting import Predictor

if TYPE_CHECKING:
    from trustvlm.pipeline import TrustVLM

__all__ = ["Compute", "LoadModel", "Loader", "Probe", "main", "receive", "send"]

Loader = Callable[[], "TrustVLM"]
# How often a worker gives a sign of life, in seconds. It comes from a thread of its own, so it
# stays out only if the process hangs as a whole, as when a library keeps the interpreter's lock.
_HEARTBEAT = 0.5


@dataclass(frozen=True)
class LoadModel:
    """How a worker comes by its model.

    Parameters
    ----------
    path
        A `.trust` directory.
    settings
        Of `TrustVLM.load`.
    keep_embeddings
        Use the store of embeddings; otherwise nothing is looked up or kept.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep_embeddings: bool = False

    def __call__(self) -> TrustVLM:
        """Load the model."""
        from trustvlm.pipeline import TrustVLM

        store = None if self.keep_embeddings else ForgetfulStore()
        return TrustVLM.load(self.path, store=store, **self.settings)


@dataclass(frozen=True)
class Compute:
    """Ask for the verdicts on a part."""

    part: Part
    fatal: Mapping[int, UnreadableImage] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """Ask for the images of a part, one by one, to see which of them does harm."""

    part: Part
    start: int


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    content = pickle.dumps(message)
    stream.write(len(content).to_bytes(8, "big") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; EOFError if the other side is gone."""
    head = stream.read(8)
    content = stream.read(int.from_bytes(head, "big")) if len(head) == 8 else b""
    if not content:
        raise EOFError
    return pickle.loads(content)  # noqa: S301  # from the process on the other end of the pipe


def main() -> None:
    """Answer requests until there are no more."""
    # The parent decides what Control-C means; whatever a library prints must not be taken for an
    # answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    lock = threading.Lock()

    def answer(kind: str, content: Any) -> None:
        try:
            with lock:
                send(answers, (kind, content))
        except BrokenPipeError:
            # The parent is gone, and so is whoever could read a complaint.
            os._exit(0)

    def warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, TrustVLMWarning):
            answer("warning", str(message))

    def beat() -> None:
        while True:
            time.sleep(_HEARTBEAT)
            answer("alive", None)

    warnings.showwarning = warn
    threading.Thread(target=beat, daemon=True).start()
    try:
        model = requests.get()()
        computer = PartComputer(Predictor(model))
        answer("ready", model.encoders.notes())
        while True:
            _answer(computer, requests.get(), answer)
    except TrustVLMError as error:
        answer("refused", error)
    except BaseException as error:
        # A part that makes the program fail is treated as one that kills it.
        answer("dying", f"{type(error).__name__}: {error}")
    os._exit(70)


def _answer(computer: PartComputer, request: Any, answer: Callable[[str, Any], None]) -> None:
    if isinstance(request, Probe):
        for position in computer.probe(request.part, request.start):
            answer("passed", position)
        answer("probed", None)
    else:
        answer("done", (computer.compute(request.part, request.fatal), n_hanging()))


def _read(stream: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            requests.put(receive(stream))
        except EOFError:
            # The parent is gone: nobody waits for what is being computed.
            os._exit(0)
