"""What an input may be (file, folder, list, table, archive, URL), and its images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

from trustvlm.exceptions import InputError
from trustvlm.images.archives import TAR_EXTENSIONS, TarShard
from trustvlm.images.folders import class_folders, images_below, walk_images
from trustvlm.images.formats import IMAGE_EXTENSIONS
from trustvlm.images.parquet import ParquetShard
from trustvlm.images.references import FoundImages, ImageRef, ImageSource, LabelledImages, shown
from trustvlm.images.remote import Location, RemoteImage, expand, image_at, is_url
from trustvlm.images.shards import FileShard, ImageShard
from trustvlm.images.tables import (
    TABLE_EXTENSIONS,
    read_lines,
    read_table,
    stream_column,
    stream_lines,
)

# Find the images that a user means: a file, a folder, a list, a table.

PathLike: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = PathLike | Iterable[PathLike]
LabelledSource: TypeAlias = PathLike | tuple[Iterable[PathLike], Iterable[str]]


def find_images(source: Source, *, path_column: str = "path") -> FoundImages:
    """List the images of a source, without opening them.

    Parameters
    ----------
    source
        * a folder: every image file below it, ordered by relative path; hidden files and files
          with other extensions are passed over and counted;
        * a `.csv` or `.tsv` table with a column of paths, or a `.txt` file with one path a line,
          both relative to the file's own folder;
        * any other file: that one image, whatever its extension;
        * a list of these, one after the other; images in folders are then shown with their
          folder. A path in a list, a table or a text file that does not exist is kept: it
          becomes an image with an error, not a missing row.
    path_column
        Name of the column of paths in a table.

    Returns
    -------
    FoundImages
        A list of `ImageRef` with `n_skipped`; a file that is named twice is there twice.

    Raises
    ------
    InputError
        If there is no such path (in a list: none of them), or no image at all.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg"):
    ...     _ = (folder / name).write_bytes(b"x")
    >>> found = find_images(folder)
    >>> [ref.path for ref in found], found.n_skipped
    (['a.PNG', 'b.jpg'], 1)
    """
    if isinstance(source, (str, os.PathLike)):
        items, described = [source], shown(source)
    else:
        items, described = [_checked_path(item) for item in source], "the given list"
    if items and not any(_exists(Path(item)) for item in items):
        others = f" (nor any of the {len(items) - 1} others)" if len(items) > 1 else ""
        raise InputError(
            f"Expected images, folders, CSV files or text files of paths, but there is no "
            f"{shown(items[0])!r}{others}."
        )
    found = FoundImages()
    for item in items:
        # With one source, paths relative to it suffice; several have to be told apart.
        prefix = shown(Path(item).as_posix()) if len(items) > 1 else ""
        part = _one(item, path_column, prefix="" if prefix == "." else prefix)
        found.extend(part)
        found.skipped.update(part.skipped)
    if not found:
        raise InputError(no_images(described, found.skipped))
    return found


def find_labelled(
    source: LabelledSource, *, path_column: str = "path", label_column: str = "label"
) -> LabelledImages:
    """List the images of a source together with their classes.

    Parameters
    ----------
    source
        * a folder of class folders: files at any depth below a class folder belong to it, and
          image files beside the class folders are reported as `loose`;
        * a `.csv` or `.tsv` table with a column of paths, relative to its folder, and one of
          labels;
        * `(paths, labels)`, two sequences of equal length.
    path_column, label_column
        Names of the two columns in a table.

    Raises
    ------
    InputError
        If there is no such path, no class folder, no image, or an image without a label.

    Examples
    --------
    >>> labelled = find_labelled((["1.jpg", "2.jpg"], ["dog", "cat"]))
    >>> labelled.classes, labelled.labels
    (('cat', 'dog'), ['dog', 'cat'])
    """
    if not isinstance(source, (str, os.PathLike)):
        return _labelled_pair(source)
    path = Path(source)
    if _is_folder(path):
        return _labelled_folder(path, shown(source))
    if not _exists(path):
        raise InputError(
            f"Expected a folder of class folders or a CSV with paths and labels, but there is no "
            f"{shown(source)!r}."
        )
    if path.suffix.lower() not in TABLE_EXTENSIONS:
        raise InputError(
            f"Expected a folder of class folders or a CSV with paths and labels, but got the file "
            f"{shown(source)!r}."
        )
    refs = FoundImages(
        ImageRef(shown(name), path.parent / name, label)
        for name, label in (row.cells for row in read_table(path, (path_column, label_column)))
    )
    return _from_refs(refs, shown(source))


def _exists(path: Path) -> bool:
    # Unlike the methods of Path, these do not raise for names that are too long.
    return os.path.exists(path)  # noqa: PTH110


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _checked_path(item: Any) -> PathLike:
    if not isinstance(item, (str, os.PathLike)):
        raise InputError(
            f"Expected every image to be named by a path, but got a {type(item).__name__}."
        )
    return item


def _one(source: PathLike, path_column: str, *, prefix: str) -> FoundImages:
    path = Path(source)
    suffix = path.suffix.lower()
    if _is_folder(path):
        return images_below(path, prefix=prefix)
    if suffix in TABLE_EXTENSIONS and _exists(path):
        names = [row.cells[0] for row in read_table(path, (path_column,))]
    elif suffix == ".txt" and _exists(path):
        names = read_lines(path)
    else:
        return FoundImages([ImageRef(shown(source), path)])
    return FoundImages(ImageRef(shown(name), path.parent / name) for name in names)


def _labelled_folder(folder: Path, described: str) -> LabelledImages:
    names, loose = class_folders(folder)
    if not names:
        raise InputError(
            f"Expected {described!r} to hold one folder per class with its images inside, but it "
            f"holds no folders ({len(loose)} image files)."
        )
    refs = FoundImages(skipped=loose.skipped)
    for name in names:
        part = images_below(folder / name, prefix=name, label=shown(name))
        refs.extend(part)
        refs.skipped.update(part.skipped)
    if not refs:
        raise InputError(no_images(f"the class folders of {described}", refs.skipped))
    return LabelledImages(refs, tuple(map(shown, names)), tuple(ref.path for ref in loose))


def _labelled_pair(source: Any) -> LabelledImages:
    try:
        paths, labels = (None if isinstance(part, str) else list(part) for part in source)
    except (TypeError, ValueError):
        paths = labels = None
    if paths is None or labels is None:
        raise InputError(
            "Expected a folder, a CSV or a pair (paths, labels) of two lists, but got "
            f"a {type(source).__name__} of something else."
        )
    if len(paths) != len(labels):
        raise InputError(
            f"Expected as many labels as paths, but got {len(paths)} paths and "
            f"{len(labels)} labels."
        )
    for position, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise InputError(
                f"Expected every label to be the name of a class, but got {label!r} at "
                f"position {position}."
            )
    refs = FoundImages(
        ImageRef(shown(_checked_path(path)), Path(path), str(label))
        for path, label in zip(paths, labels, strict=True)
    )
    return _from_refs(refs, "the given list")


def _from_refs(refs: FoundImages, described: str) -> LabelledImages:
    if not refs:
        raise InputError(f"Expected at least one labelled image, but {described} lists none.")
    return LabelledImages(refs, tuple(sorted({str(ref.label) for ref in refs})))


def no_images(described: str, skipped: Counter[str]) -> str:
    """Say that a source holds no images, and what it holds instead, by extension."""
    others = ""
    if skipped:
        kinds = ", ".join(f"{count} x {suffix}" for suffix, count in skipped.most_common(5))
        others = f" It holds {skipped.total()} other files ({kinds})."
    if skipped.keys() & {".tar", ".gz", ".tgz", ".parquet"}:
        others += " Name archives and Parquet files themselves, as with *.tar."
    return (
        f"Expected at least one image, but found none in {described}.{others} "
        f"Looked for {' '.join(sorted(IMAGE_EXTENSIONS))}."
    )


# Everything that may be predicted on, as one stream of images, however many they are.

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
