"""How large or small an image may be before it is refused, and how long it may take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trustvlm.exceptions import InputError

__all__ = ["DEFAULT_LIMITS", "Limits", "Stopwatch"]


@dataclass(frozen=True)
class Limits:
    """Bounds that an image must keep; all but the time are checked before any pixel is decoded.

    Parameters
    ----------
    max_pixels
        Width times height as the file's header states them. A few hundred bytes can claim
        gigapixels (a decompression bomb), so the claim is checked, not the outcome.
    max_bytes
        Size of the file.
    min_side
        Shorter side in pixels. Below 8 pixels, one block of a JPEG, there is nothing to
        recognise: such files are tracking pixels, spacers and failed thumbnails, and a model
        would nevertheless give them a confident label. CIFAR's 32 and the 8 of scikit-learn's
        digits pass.
    seconds
        Time for reading and decoding one image. Whoever runs images through encoders watches it
        (`embeddings`); `decode` alone does not. A decoder that hangs cannot be stopped, so its
        thread is left behind and the rest goes on without it.

    Raises
    ------
    InputError
        If `seconds` is not a positive number, or another bound not a positive whole number.

    Examples
    --------
    >>> Limits(max_pixels=1_000_000).min_side
    8
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 256 * 2**20
    min_side: int = 8
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "min_side"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"Expected `{name}` to be a positive whole number, but got {value!r}."
                )
        seconds = self.seconds
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (number and 0 < seconds < math.inf):
            raise InputError(f"Expected `seconds` to be a positive number, but got {seconds!r}.")


DEFAULT_LIMITS = Limits()


class Stopwatch:
    """How long one image has been worked on; one thread runs it, and any may read it.

    Examples
    --------
    >>> stopwatch = Stopwatch()
    >>> with stopwatch:
    ...     stopwatch.seconds >= 0
    True
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """The time while it ran."""
        since = self._since
        return self._spent + (0.0 if since is None else time.monotonic() - since)

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = self.seconds
        self._since = None
        self._spent = spent

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it while the block waits for others, if it runs."""
        if self._since is None:
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()
