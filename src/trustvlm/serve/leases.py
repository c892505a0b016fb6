"""Which reviewer has which image at the moment, so that no two people work on the same one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

# Longer than a browser lets a page in the background sleep between two renewals (a minute).
LEASE_SECONDS = 150.0
MOST_HELD = 100


class Leases:
    """Images that reviewers hold; in memory, and each lease ends unless it is renewed.

    While a lease holds, nobody else is handed the image. It decides who sees an image, and not
    whose answer is stored: an answer given after the lease ended is as good as any.

    Parameters
    ----------
    seconds
        After which an image that was not renewed is anyone's again.
    clock
        Seconds that never go back.

    Examples
    --------
    >>> leases = Leases()
    >>> leases.take("pets", "ann", ["a", "b", "c"], 2)
    ['a', 'b']
    >>> leases.take("pets", "bob", ["a", "b", "c"], 2)
    ['c']
    >>> leases.renew("pets", "bob", ["a", "c"]), leases.release("pets", "ann")
    (['c'], 2)
    """

    def __init__(
        self, seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        # By model and image: whose it is, and until when.
        self._held: dict[tuple[str, str], tuple[str, float]] = {}

    def __len__(self) -> int:
        self._end_old()
        return len(self._held)

    def take(self, model: str, reviewer: str, images: Sequence[str], limit: int) -> list[str]:
        """Lease images to a reviewer: those already held first, then the first that nobody holds.

        Parameters
        ----------
        model
            Whose queue it is.
        reviewer
            Any text of the reviewer's own.
        images
            Those that wait, in the order of the queue.
        limit
            How many at most. One reviewer holds no more than 100 in all.
        """
        self._end_old()
        own = [image for image in images if self._holder(model, image) == reviewer]
        free = [image for image in images if self._holder(model, image) is None]
        return self._hold(model, reviewer, (own + free[: self._n_left(reviewer)])[:limit])

    def renew(self, model: str, reviewer: str, images: Iterable[str]) -> list[str]:
        """Lease images for longer; return those that are the reviewer's now.

        A lease that ended meanwhile begins anew if nobody else has taken the image.
        """
        self._end_old()
        n_left, own = self._n_left(reviewer), []
        for image in images:
            holder = self._holder(model, image)
            if holder == reviewer or (holder is None and n_left > 0):
                n_left -= holder is None
                own.append(image)
        return self._hold(model, reviewer, own)

    def end(self, model: str, images: Iterable[str]) -> None:
        """End the leases of images that are answered, which would count as held by somebody."""
        for image in images:
            self._held.pop((model, image), None)

    def release(self, model: str, reviewer: str) -> int:
        """End all leases of a reviewer; return how many."""
        self._end_old()
        own = [k for k, (holder, _) in self._held.items() if k[0] == model and holder == reviewer]
        for key in own:
            del self._held[key]
        return len(own)

    def _holder(self, model: str, image: str) -> str | None:
        return self._held.get((model, image), (None, 0.0))[0]

    def _n_left(self, reviewer: str) -> int:
        """Return how many more images a reviewer may hold."""
        return max(0, MOST_HELD - sum(holder == reviewer for holder, _ in self._held.values()))

    def _hold(self, model: str, reviewer: str, images: list[str]) -> list[str]:
        until = self._clock() + self.seconds
        self._held |= {(model, image): (reviewer, until) for image in images}
        return images

    def _end_old(self) -> None:
        now = self._clock()
        self._held = {key: held for key, held in self._held.items() if held[1] > now}
