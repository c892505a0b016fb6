"""Images in tar archives, such as the shards of WebDataset."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from trustvlm.exceptions import ImageError
from trustvlm.images.errors import DEFAULT_LIMITS
from trustvlm.images.folders import looks_like_image
from trustvlm.images.reading import check_size
from trustvlm.images.references import ImageSource, InMemoryImage, UnreadableImage, shown
from trustvlm.images.remote import Location
from trustvlm.images.shards import read_ahead, read_patiently, stamp_of

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
TAR_EXTENSIONS = frozenset({".tar", ".tgz", *(f".tar{ending}" for ending in _OPENERS)})
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)


@dataclass(frozen=True)
class TarShard:
    """The images of a tar archive, read one after the other in a single pass.

    Members with other extensions (`.json`, `.txt`, `.cls`) and hidden ones are passed over.
    What is wrong with the archive itself becomes the error of one more image, after those that
    could be read.

    Parameters
    ----------
    name
        What the user calls the archive.
    location
        Where it is; `.tar`, or compressed as `.tar.gz`, `.tgz`, `.tar.bz2`, `.tar.xz`.
    prefix
        Put before the name of each member, with a slash.
    """

    name: str
    location: Location
    prefix: str = ""

    @property
    def length(self) -> None:
        """Not known without reading."""
        return

    def stamp(self) -> str:
        """Tell this archive from another by its size and date."""
        return stamp_of(self.location)

    def images(self, start: int = 0) -> Iterator[ImageSource]:
        """Yield the images from a position on; the content of those before it is passed over."""
        images = read_patiently(self._images, start, self.location, self.name, _DAMAGE)
        return read_ahead(images)

    def _images(self, start: int) -> Iterator[ImageSource]:
        position = 0
        with ExitStack() as opened:
            raw = opened.enter_context(self.location.open())
            file = _decompressed(raw, self.location.suffix)
            archive = opened.enter_context(tarfile.open(fileobj=file, mode="r:"))
            while (member := archive.next()) is not None:
                # Otherwise the archive remembers every member that it has seen.
                archive.members = []  # type: ignore[attr-defined]
                if member.isreg() and _is_image(member.name):
                    position += 1
                    if position > start:
                        yield self._image(archive, member)
            _check_end(file, archive.offset)

    def _image(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> ImageSource:
        path = shown(f"{self.prefix}/{member.name}" if self.prefix else member.name)
        try:
            check_size(member.size, DEFAULT_LIMITS, path)
        except ImageError as error:
            return UnreadableImage.of(path, error)
        stream = archive.extractfile(member)
        return InMemoryImage(path, stream.read() if stream else b"")


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return looks_like_image(name) and not any(p.startswith(".") and p != "." for p in parts)


def _decompressed(raw: IO[bytes], suffix: str) -> IO[bytes]:
    opener = _OPENERS.get(".gz" if suffix == ".tgz" else suffix.removeprefix(".tar"))
    opened: IO[bytes] = raw if opener is None else opener(raw)
    return opened


def _check_end(file: IO[bytes], offset: int) -> None:
    # tarfile takes a damaged header, or the end of the file, for the end of the archive.
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("a header is damaged" if block else "its end is missing")
