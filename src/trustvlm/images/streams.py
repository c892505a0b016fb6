"""Everything that may be predicted on, as one stream of images, however many they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from trustvlm.exceptions import InputError
from trustvlm.images.archives import TAR_EXTENSIONS, TarShard
from trustvlm.images.columns import ParquetShard
from trustvlm.images.folders import walk_images
from trustvlm.images.locations import Location, RemoteImage, expand, image_at, is_url
from trustvlm.images.long_tables import stream_column, stream_lines
from trustvlm.images.references import ImageRef, ImageSource, shown
from trustvlm.images.shards import FileShard, ImageShard
from trustvlm.images.sources import Source, find_images, no_images
from trustvlm.images.tables import TABLE_EXTENSIONS

__all__ = ["image_shards", "open_images"]

_STREAMED = TAR_EXTENSIONS | {".parquet"}


def open_images(
    source: Source, *, path_column: str = "path", image_column: str | None = None
) -> Iterable[ImageSource]:
    """Return the images of a source: a list where `find_images` makes one, a stream otherwise.

    Parameters
    ----------
    source
        What `find_images` takes, and tar archives, Parquet files with images, and URLs.
    path_column, image_column
        Columns in tables and Parquet files; see `image_shards`.

    Raises
    ------
    InputError
        If there is no such path, or no image at all.
    """
    if not any(_is_streamed(item) for item in _items(source)):
        return find_images(source, path_column=path_column)
    shards = image_shards(source, path_column=path_column, image_column=image_column)
    return chain.from_iterable(shard.images() for shard in shards)


def image_shards(
    source: Source,
    *,
    size: int = 4096,
    path_column: str = "path",
    image_column: str | None = None,
) -> Iterator[ImageShard]:
    """Yield the pieces of a source one by one, always in the same order.

    Neither images nor lists of them are held: the memory is that of one piece, and of the names in
    the largest single folder.

    Parameters
    ----------
    source
        One of these, or a list of them:

        * a folder of images, at any depth; hidden files and other extensions are passed over;
        * a `.csv` or `.tsv` table with a column of paths or URLs, or a `.txt` file with one a line,
          relative to the file's own folder;
        * a tar archive of images (`.tar`, `.tar.gz`, ...), as WebDataset's shards are;
        * a `.parquet` file with the bytes of images, or with paths;
        * one image;
        * the URL of any of these, by fsspec (extra `remote`); `*` stands for any name.
    size
        Images in a piece of a folder or list, at most. An archive or a Parquet file is one piece.
    path_column, image_column
        Columns in tables and Parquet files; see `ParquetShard`.

    Yields
    ------
    ImageShard
        At least one.

    Raises
    ------
    InputError
        If nothing of the source exists, or it holds no image.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.jpg", "a.jpg", "c.jpg"):
    ...     _ = (folder / name).write_bytes(b"x")
    >>> [[image.path for image in shard.images()] for shard in image_shards(folder, size=2)]
    [['a.jpg', 'b.jpg'], ['c.jpg']]
    """
    items = [part for item in _items(source) for part in (expand(item) if is_url(item) else [item])]
    if items and not any(Location(item).exists() for item in items):
        others = f" (nor any of the {len(items) - 1} others)" if len(items) > 1 else ""
        raise InputError(
            f"Expected images, folders, tables, archives or URLs, but there is no "
            f"{shown(items[0])!r}{others}."
        )
    skipped: Counter[str] = Counter()
    shards = _shards(items, size, path_column, image_column, skipped)
    first = next(shards, None)
    if first is None:
        described = shown(items[0]) if len(items) == 1 else "the given list"
        raise InputError(no_images(described, skipped))
    yield first
    yield from shards


def _items(source: Source) -> list[str]:
    if isinstance(source, (str, os.PathLike)):
        return [os.fspath(source)]
    items = list(source)
    for item in items:
        if not isinstance(item, (str, os.PathLike)):
            raise InputError(
                f"Expected every input to be named by a path or URL, but got a "
                f"{type(item).__name__}."
            )
    return [os.fspath(item) for item in items]


def _is_streamed(item: str) -> bool:
    return is_url(item) or (Location(item).suffix in _STREAMED and not Path(item).is_dir())


def _shards(
    items: list[str],
    size: int,
    path_column: str,
    image_column: str | None,
    skipped: Counter[str],
) -> Iterator[ImageShard]:
    alone: list[ImageSource] = []
    for item in items:
        location = Location(item)
        found = _shard(location, path_column, image_column, several=len(items) > 1)
        refs = None if found else _refs(location, path_column, skipped, several=len(items) > 1)
        if found is None and refs is None:
            alone.append(_image(item))
            if len(alone) < size:
                continue
        if alone:
            yield FileShard(alone[0].path, tuple(alone))
            alone = []
        if found is not None:
            yield found
        if refs is not None:
            yield from _cut(shown(item), refs, size)
    if alone:
        yield FileShard(alone[0].path, tuple(alone))


def _shard(
    location: Location, path_column: str, image_column: str | None, *, several: bool
) -> ImageShard | None:
    name = shown(location.text)
    # With one source, the names inside it suffice; several have to be told apart.
    prefix = name if several else ""
    # To ask a distant server about each of ten thousand archives would take minutes.
    if location.suffix not in _STREAMED or (not is_url(location.text) and location.is_folder()):
        return None
    if location.suffix in TAR_EXTENSIONS:
        return TarShard(name, location, prefix)
    return ParquetShard(name, location, path_column, image_column, prefix)


def _refs(
    location: Location, path_column: str, skipped: Counter[str], *, several: bool
) -> Iterator[ImageSource] | None:
    prefix = Path(location.text).as_posix() if several and not is_url(location.text) else ""
    if location.is_folder():
        if is_url(location.text):
            return location.images_below(prefix=location.text if several else "")
        start = "" if prefix == "." else shown(prefix)
        return walk_images(Path(location.text), prefix=start, skipped=skipped)
    if location.suffix in TABLE_EXTENSIONS and location.exists():
        names = stream_column(location, path_column)
    elif location.suffix == ".txt" and location.exists():
        names = stream_lines(location)
    else:
        return None
    return (image_at(name, beside=location) for name in names)


def _image(item: str) -> ImageSource:
    if is_url(item):
        return RemoteImage(shown(item), item)
    return ImageRef(shown(item), Path(item))


def _cut(name: str, refs: Iterable[ImageSource], size: int) -> Iterator[FileShard]:
    images = iter(refs)
    while part := tuple(islice(images, size)):
        yield FileShard(name, part)
