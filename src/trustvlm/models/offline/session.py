"""Run an ONNX graph on many inputs at once, one input at a time per thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from numpy.typing import NDArray

from trustvlm.cores import usable_cores
from trustvlm.exceptions import InputError, ModelUnavailableError
from trustvlm.extras import require

__all__ = ["Session"]

_Item = TypeVar("_Item")


class Session:
    """A graph that is ready to run on the CPU.

    Each input is computed alone, by one thread. That makes the numbers of an input the same in
    whatever company it comes and however many threads there are, keeps its activations in the
    processor's cache, and is as fast as many threads on one batch.

    Parameters
    ----------
    graph
        A serialised ONNX model.
    name
        What to call the model in an error message.
    threads
        How many inputs to compute at a time; None takes the CPUs that this process may use.

    Raises
    ------
    InputError
        If `threads` is less than 1.
    MissingExtraError
        If ONNX Runtime is not installed.
    ModelUnavailableError
        If ONNX Runtime cannot read the graph.
    """

    def __init__(self, graph: bytes, *, name: str, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"Expected `threads` to be None or at least 1, but got {threads}.")
        self.threads = threads or usable_cores()
        runtime = require("onnxruntime", extra="offline", purpose="The offline model")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        # The runtime's own exception classes derive from nothing narrower.
        except Exception as error:
            raise ModelUnavailableError(
                f"ONNX Runtime cannot read the graph of {name}: {error}"
            ) from error

    def map(
        self,
        output: str,
        feed: Callable[[_Item], dict[str, NDArray[Any]]],
        items: Sequence[_Item],
    ) -> list[NDArray[Any]]:
        """Return one output per item, in order; `feed` turns an item into the graph's inputs."""

        def run(item: _Item) -> NDArray[Any]:
            result: NDArray[Any] = self._session.run([output], feed(item))[0]
            return result

        workers = min(self.threads, len(items))
        if workers <= 1:
            return [run(item) for item in items]
        with ThreadPoolExecutor(workers, thread_name_prefix="trustvlm-offline") as pool:
            return list(pool.map(run, items))
