"""From a part to its verdicts, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from trustvlm.bulk.parts import FinishedPart, Part, finished_part
from trustvlm.embeddings import Profile
from trustvlm.images import ImageSource
from trustvlm.images.references import UnreadableImage
from trustvlm.images.shards import BrokenShard
from trustvlm.pipeline.predicting import Predictor
from trustvlm.pipeline.verdicts import Verdict

__all__ = ["PartComputer"]


class PartComputer:
    """Computes parts with one model; parts of one archive in order need a single pass over it.

    Parameters
    ----------
    predictor
        With a score that judges each image by itself.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._expected: tuple[int, int] | None = None
        self._images: Iterator[ImageSource] = iter(())

    def compute(self, part: Part, fatal: Mapping[int, UnreadableImage]) -> FinishedPart:
        """Return the verdicts on a part.

        Parameters
        ----------
        part
            Which images.
        fatal
            What stands in place of images that must not be read, by position in the part.
        """
        watched = _Watched(self._from(part), fatal)
        verdicts: list[Verdict] = []
        kinds: list[str] = []
        profile = Profile()
        for found, judged in self._predictor.chunks(watched, profile=profile):
            verdicts += judged
            kinds += found.failure_kinds
        self._expected = part.next().key
        end = len(verdicts) < part.size or part.start + len(verdicts) == part.shard.length
        last = end or watched.broken
        return finished_part(part, verdicts, kinds, last=last, seconds=profile.seconds)

    def probe(self, part: Part, start: int) -> Iterator[int]:
        """Yield the position of each image of a part, from a position on, that does no harm."""
        self._expected = None
        images = islice(part.shard.images(part.start + start), part.size - start)
        for position, image in enumerate(images, start):
            for _ in self._predictor.chunks([image]):
                pass
            yield position

    def _from(self, part: Part) -> Iterator[ImageSource]:
        if self._expected != part.key:
            self._images = part.shard.images(part.start)
        # Whatever fails from here on leaves the position unknown.
        self._expected = None
        return islice(self._images, part.size)


class _Watched:
    """Passes images on, replaces those that must not be read, and notes the end of a shard."""

    def __init__(self, images: Iterator[ImageSource], fatal: Mapping[int, UnreadableImage]) -> None:
        self._images = images
        self._fatal = fatal
        self.broken = False

    def __iter__(self) -> Iterator[ImageSource]:
        for position, image in enumerate(self._images):
            self.broken = isinstance(image, BrokenShard)
            yield self._fatal.get(position, image)
