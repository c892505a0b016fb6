"""What an input may be (file, folder, list, table, archive, URL), and its images."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images.archives import ARCHIVE_EXTENSIONS, archive_shard, archive_type
from trustvlm.images.collections import MapDataset, items_of
from trustvlm.images.errors import DEFAULT_LIMITS, Limits, refusal
from trustvlm.images.formats import IMAGE_EXTENSIONS, is_image_content, is_other_content
from trustvlm.images.locations import (
    Location,
    RemoteImage,
    expand,
    file_system,
    image_at,
    images_beside,
    read_head,
)
from trustvlm.images.parquet import ParquetShard
from trustvlm.images.pictures import Item, Picture
from trustvlm.images.references import (
    NAMED,
    FileShard,
    ImageList,
    ImageRef,
    ImageShard,
    ImageSource,
    Skipped,
    UnreadableImage,
    is_output_folder,
    is_system_folder,
    open_regular,
    shown,
)
from trustvlm.images.tables import TABLE_EXTENSIONS, read_lines, read_table
from trustvlm.text import counted, join_names, printable

# How much of a file says what it is, and of an iterator whether there is anything.
_HEAD_BYTES, _HEAD_ITEMS = 256, 1000

PathLike: TypeAlias = str | os.PathLike[str]
PathSource: TypeAlias = PathLike | Iterable[PathLike]
_One: TypeAlias = PathLike | Picture | None
Source: TypeAlias = PathLike | Picture | Iterable[_One] | Mapping[str, _One] | MapDataset[Any]
"""Where images are taken: a path or URL, a picture, or several of them."""
LabelledSource: TypeAlias = (
    PathLike
    | tuple[Source, Iterable[Any]]
    | Iterable[tuple[_One, Any]]
    | Iterable[Mapping[str, Any]]
    | MapDataset[Any]
)
"""The same with the classes of the images."""


class Columns(TypedDict, total=False):
    """What the columns of tables and Parquet files are called.

    Attributes
    ----------
    path_column
        Paths or URLs; `path` by default.
    label_column
        The classes of labelled images; `label` by default.
    image_column
        The bytes of images in a Parquet file; the only such column by default.
    group_column
        What labelled images have in common that are not independent of each other, such as a scene;
        none by default.
    """

    path_column: str
    label_column: str
    image_column: str | None
    group_column: str | None


InputKind: TypeAlias = Literal["folder", "table", "text list", "archive", "Parquet file", "image"]


def input_kind(location: Location) -> InputKind:
    """Decide what one path or URL is, for every reader.

    What a file on this machine is its content says, and its name where the content says nothing.
    Where the name is that of an image, that is left to the decoder; elsewhere the name decides. A
    name that does not exist is an image, which becomes an error when it is read.

    Raises
    ------
    InputError
        For a spreadsheet.

    Examples
    --------
    >>> input_kind(Location("shards/0001.tar.gz")), input_kind(Location("no/such/photo.jpg"))
    ('archive', 'image')
    """
    suffix = location.suffix
    named: InputKind = "image"
    if suffix in ARCHIVE_EXTENSIONS:
        named = "archive"
    elif suffix in _PARQUET_EXTENSIONS:
        named = "Parquet file"
    elif suffix in TABLE_EXTENSIONS:
        named = "table"
    elif suffix == ".txt":
        named = "text list"
    # To ask a distant server about each of ten thousand archives would take minutes.
    if location.is_url and named in ("archive", "Parquet file"):
        return named
    if location.is_folder():
        return "folder"
    if suffix in _SPREADSHEET_EXTENSIONS:
        raise InputError(
            f"{shown(location.text)} is a spreadsheet, which is not read: save it as CSV."
        )
    if named in ("table", "text list") and not location.exists():
        return "image"
    if location.is_url or suffix in IMAGE_EXTENSIONS:
        return named
    return _kind_by_content(location, is_text=named in ("table", "text list")) or named


_PARQUET_EXTENSIONS = frozenset({".parquet", ".pq"})
# Most of them are zip archives, by their content.
_SPREADSHEET_EXTENSIONS = frozenset({".numbers", ".ods", ".xls", ".xlsb", ".xlsm", ".xlsx"})


def _kind_by_content(location: Location, *, is_text: bool) -> InputKind | None:
    """Return what the content of a file on this machine says it is; None if it says nothing."""
    head = read_head(location, _HEAD_BYTES)
    if is_text and head.isascii() and b"\0" not in head:
        # A text may begin with the letters by which some formats are recognised.
        return None
    if head.startswith(b"PAR1"):
        return "Parquet file"
    if archive_type(location) is not None:
        return "archive"
    return "image" if is_image_content(head) or is_other_content(head) else None


def has_own_files(item: PathLike | ImageSource) -> bool:
    """Whether the images of an input are files on this machine, or held, so that they are listed.

    Examples
    --------
    >>> has_own_files("photos/"), has_own_files("photos.tar")
    (True, False)
    """
    if not isinstance(item, str | os.PathLike):
        return True
    location = Location.of(item)
    return not location.is_url and input_kind(location) not in ("archive", "Parquet file")


# Images without classes: in pieces, as one stream, as a list.


def image_shards(
    source: Source,
    *,
    size: int = 4096,
    path_column: str = "path",
    image_column: str | None = None,
    skipped: Skipped | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[ImageShard]:
    """Yield the pieces of a source one by one, always in the same order.

    Neither images nor lists of them are held: the memory is that of one piece, and of the names in
    the largest single folder.

    Parameters
    ----------
    source
        One of these, or a list of them, one after the other:

        * a folder of images, at any depth, ordered by relative path; whatever its name ends in, a
          file is an image if it begins as one; other files, hidden ones and folders that
          operating systems and storage boxes make for themselves are passed over;
        * a `.csv`, `.tsv` or `.jsonl` table with a column of paths or URLs, or a `.txt` file with
          one a line, relative to the file's own folder;
        * a tar archive of images, perhaps compressed, as WebDataset's shards are, or a zip archive;
        * a `.parquet` file with the bytes of images, or with paths;
        * any other file: that one image, whatever its extension;
        * the URL of any of these, by fsspec (extra `remote`); `*` stands for any name;
        * a picture that the program holds, alone, in a list or mapping, an array, a tensor, a data
          frame or a data set; see `images.pictures` and `images.collections`.

        An iterator is read as the pieces are taken, and may go on for ever. With several, images
        are shown with their folder or archive in front. A path in a list, a table or a text file
        that does not exist is kept: it becomes an image with an error, not a missing row.
    size
        Images in a piece of a folder or list, at most. An archive or a Parquet file is one piece.
    path_column
        Column of paths in a table; in a Parquet file of names, or of paths if none holds bytes.
    image_column
        Column of bytes in a Parquet file; see `ParquetShard`.
    skipped
        Counts the files of folders that are passed over, as the pieces come, and the members of
        an archive, once its images are read.
    limits
        Bounds on archives and what is in them.

    Yields
    ------
    ImageShard
        At least one.

    Raises
    ------
    InputError
        If there is no such path (in a list: none of them), or no image at all.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.jpg", "a.jpg", "c.jpg"):
    ...     _ = (folder / name).write_bytes(b"x")
    >>> [[image.path for image in shard.images()] for shard in image_shards(folder, size=2)]
    [['a.jpg', 'b.jpg'], ['c.jpg']]
    """
    skipped = Skipped() if skipped is None else skipped
    head, items = _begin(
        items_of(source, path_column=path_column, image_column=image_column, limits=limits)
    )
    head = list(chain.from_iterable(map(_expand, head)))
    is_all = items is None
    if head and is_all and not any(map(_exists, head)):
        others = f" (nor any of the {len(head) - 1} others)" if len(head) > 1 else ""
        raise InputError(
            f"Expected images, folders, tables, archives or URLs, but there is no "
            f"{_name_of(head[0])!r}{others}."
        )
    shard = None
    several = len(head) > 1 or not is_all
    every = chain(head, chain.from_iterable(map(_expand, items or ())))
    pieces = _pieces(every, several, size, path_column, image_column, skipped, limits)
    for shard in pieces:
        yield shard
    if shard is None:
        name = _name_of(head[0]) if len(head) == 1 else "the given list"
        raise InputError(no_images(name, skipped))


def open_images(
    source: Source, *, limits: Limits = DEFAULT_LIMITS, **columns: Unpack[Columns]
) -> Iterable[ImageSource]:
    """Return the images of a source: a list where all are files here, otherwise a stream.

    Parameters
    ----------
    source, limits
        As in `image_shards`.
    **columns
        As in `Columns`; labels are left aside.

    Raises
    ------
    InputError
        As `image_shards`; of a stream when it is read.
    """
    path_column, image_column = columns.get("path_column", "path"), columns.get("image_column")
    head, rest = _begin(
        items_of(source, path_column=path_column, image_column=image_column, limits=limits)
    )
    if rest is not None:
        return _stream(chain(head, rest), path_column, image_column, limits)
    if all(map(has_own_files, head)):
        images = find_images(head, path_column=path_column)
        warn_of_skipped(images.skipped)
        return images
    return _stream(head, path_column, image_column, limits)


def _begin(items: list[Item] | Iterator[Item]) -> tuple[list[Item], Iterator[Item] | None]:
    """Return the first items, and an iterator of the others; None if there can be no others.

    An iterator may go on for ever, and its pictures are held in memory: only paths at its beginning
    are looked at before it is read.
    """
    if isinstance(items, list):
        return items, None
    head: list[Item] = []
    for item in items:
        head.append(item)
        if len(head) == _HEAD_ITEMS or not isinstance(item, str):
            return head, items
    return head, None


def _expand(item: Item) -> Sequence[Item]:
    return expand(item) if isinstance(item, str) else [item]


def _exists(item: Item) -> bool:
    return not isinstance(item, str) or Location.of(item).exists()


def _name_of(item: Item) -> str:
    return shown(item) if isinstance(item, str) else item.path


def _stream(
    source: Source, path_column: str, image_column: str | None, limits: Limits
) -> Iterator[ImageSource]:
    skipped, shards, n_images = Skipped(), 0, 0
    for shard in image_shards(
        source, path_column=path_column, image_column=image_column, skipped=skipped, limits=limits
    ):
        shards, name = shards + 1, shard.name
        for image in shard.images():
            n_images += 1
            yield image
    if not n_images:
        raise InputError(no_images(name if shards == 1 else "what was given", skipped))
    warn_of_skipped(skipped)


def warn_of_skipped(skipped: Skipped) -> None:
    """Warn of files that were passed over, by the names of some.

    Warns
    -----
    TrustVLMWarning
        If there are any.
    """
    if not skipped:
        return
    names = list(map(printable, skipped.names))
    listed = join_names(names[:NAMED]) if len(names) <= NAMED else ", ".join(names[:NAMED])
    more = ", ..." if skipped.total() > min(len(names), NAMED) else ""
    remedy = _ARCHIVES_THEMSELVES if skipped.keys() & _HOLDING_IMAGES else ""
    warnings.warn(
        f"{counted(skipped.total(), 'file')} passed over, in which no image begins: {listed}{more}"
        f"{remedy and '.' + remedy.rstrip('.')}",
        TrustVLMWarning,
        stacklevel=3,
    )


def find_images(
    source: Source, *, path_column: str = "path", image_column: str | None = None
) -> ImageList:
    """List the images of a source; files are not opened.

    The images of archives and Parquet files are held in memory; `open_images` streams them.

    Parameters
    ----------
    source, path_column, image_column
        As in `image_shards`.

    Returns
    -------
    ImageList
        With `n_skipped`; a file that is named twice is there twice.

    Raises
    ------
    InputError
        As `image_shards`.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg"):
    ...     _ = (folder / name).write_bytes(b"x")
    >>> images = find_images(folder)
    >>> [image.path for image in images], images.n_skipped
    (['a.PNG', 'b.jpg'], 1)
    """
    skipped = Skipped()
    shards = image_shards(
        source, path_column=path_column, image_column=image_column, skipped=skipped
    )
    images = list(chain.from_iterable(shard.images() for shard in shards))
    return ImageList(images, skipped)


def _pieces(
    items: Iterable[Item],
    several: bool,
    size: int,
    path_column: str,
    image_column: str | None,
    skipped: Skipped,
    limits: Limits,
) -> Iterator[ImageShard]:
    alone: list[ImageSource] = []
    for item in items:
        if not isinstance(item, str):
            # By itself, since it is held in memory.
            yield FileShard(item.path, (*alone, item))
            alone = []
            continue
        location, name = Location.of(item), shown(item)
        # With one source, the names inside it suffice; several have to differ.
        prefix = name if several else ""
        kind = input_kind(location)
        if kind == "image":
            alone.append(image_at(item))
            if len(alone) < size:
                continue
        if alone:
            yield FileShard(alone[0].path, tuple(alone))
            alone = []
        images: Iterator[ImageSource] = iter(())
        match kind:
            case "archive":
                yield archive_shard(name, location, prefix, skipped, limits)
            case "Parquet file":
                yield ParquetShard(name, location, prefix, path_column, image_column, limits=limits)
            case "folder":
                # Images in the folder one is in need no name in front.
                start = prefix if location.is_url else Path(prefix).as_posix()
                start = "" if start == "." else start
                images = walk_images(location, prefix=start, skipped=skipped)
            case "table":
                rows = read_table(location, (path_column,))
                images = map(images_beside(location), (path for (path,) in rows))
            case "text list":
                images = map(images_beside(location), read_lines(location))
        while part := tuple(islice(images, size)):
            yield FileShard(name, part)
    if alone:
        yield FileShard(alone[0].path, tuple(alone))


def walk_images(
    folder: Location, *, prefix: str = "", skipped: Skipped | None = None
) -> Iterator[ImageSource]:
    """Yield the image files in a folder and below it, in the memory of the largest single folder.

    Hidden files and folders are left out, symbolic links are followed, and a link back to a
    folder above itself is not. The order is that of the relative paths, folder by folder;
    elsewhere the files of a folder come before those of the folders in it.

    Parameters
    ----------
    folder
        Where to look.
    prefix
        Put before each shown path, with a slash.
    skipped
        Counts the files passed over, by extension, as the walk goes on.

    Raises
    ------
    InputError
        If the folder cannot be listed; one below it becomes an image with an error.
    """
    start = f"{prefix.rstrip('/')}/" if prefix else ""
    if folder.is_url:
        files, top = file_system(folder.text)
        for relative in _remote_files(files, top):
            if is_image(relative, skipped):
                url = files.unstrip_protocol(f"{top}/{relative}")
                yield RemoteImage(f"{start}{relative}", url)
        return
    here = Path(folder.text)
    for relative, failure in _local_files(here):
        name = shown(f"{start}{relative}")
        if failure is not None:
            what = f"the folder cannot be listed ({failure.strerror})"
            remedy = "Allow yourself to read it, or leave it out"
            yield UnreadableImage.of(name, refusal("directory", name, what, remedy))
        elif is_image(relative, skipped, here / relative):
            yield ImageRef(name, here / relative)


def is_image(relative: PurePosixPath, skipped: Skipped | None, file: Path | None = None) -> bool:
    """Whether a file is an image by its extension or, if it lies here, by how it begins."""
    suffix = relative.suffix.lower()
    if suffix in IMAGE_EXTENSIONS or (file is not None and _begins_as_image(file)):
        return True
    if skipped is not None:
        skipped.add(str(relative))
    return False


def _begins_as_image(file: Path) -> bool:
    try:
        with open_regular(file) as stream:
            return is_image_content(stream.read(_HEAD_BYTES))
    except OSError as error:
        # A link to nothing or a pipe is no image; a file that cannot be read may be one.
        return isinstance(error, PermissionError) or error.errno == errno.EIO


def _local_files(top: Path) -> Iterator[tuple[PurePosixPath, OSError | None]]:
    """Yield the relative path of every file, ordered by its parts.

    Of a folder that cannot be listed, its path and the reason.
    """
    identity, names = list_folder(top)
    levels = [(PurePosixPath(), names, frozenset({identity}))]
    while levels:
        relative, names, above = levels[-1]
        if not names:
            levels.pop()
            continue
        # Names are reversed, so that the next one is the last of the list.
        name, is_folder = names.pop()
        if not is_folder:
            yield relative / name, None
            continue
        below = relative / name
        try:
            identity, inside = _list(top / below)
        except OSError as error:
            yield below, error
            continue
        if identity not in above:
            levels.append((below, inside, above | {identity}))


def _list(folder: Path) -> tuple[tuple[int, int], list[tuple[str, bool]]]:
    """Return what tells a folder from others; and its names, reversed, and whether each is one."""
    names = []
    status = folder.stat()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if is_folder and (is_system_folder(entry.name) or is_output_folder(Path(entry.path))):
                continue
            names.append((entry.name, is_folder))
    return (status.st_dev, status.st_ino), sorted(names, reverse=True)


def list_folder(folder: Path) -> tuple[tuple[int, int], list[tuple[str, bool]]]:
    """Return the same, or raise `InputError`: of a folder that is named, or a class."""
    try:
        return _list(folder)
    except OSError as error:
        raise InputError(
            f"Expected {shown(folder)!r} to be a folder that can be listed, but got: "
            f"{error.strerror}. Allow yourself to read it, or leave it out."
        ) from error


def _remote_files(files: Any, top: str) -> Iterator[PurePosixPath]:
    for folder, below, names in files.walk(top):
        # What is left of the list is walked, in its order.
        below[:] = sorted(
            name for name in below if not (name.startswith(".") or is_system_folder(name))
        )
        for name in sorted(names):
            # Consoles write an empty object without a name to make a folder.
            if name and not name.startswith("."):
                yield PurePosixPath(f"{folder}/{name}").relative_to(top)


# Endings of files that may hold images, and that folders are not searched for.
_HOLDING_IMAGES = ARCHIVE_EXTENSIONS | _PARQUET_EXTENSIONS | {".gz", ".bz2", ".xz", ".zst"}
_ARCHIVES_THEMSELVES = " Name archives and Parquet files themselves, as with *.tar."


def no_images(name: str, skipped: Skipped) -> str:
    """Say that a source holds no images, and what it holds instead, by extension."""
    others = ""
    if skipped:
        endings = ", ".join(f"{count} x {suffix}" for suffix, count in skipped.most_common(5))
        others = f" It holds {counted(skipped.total(), 'other file')} ({endings})."
    if skipped.keys() & _HOLDING_IMAGES:
        others += _ARCHIVES_THEMSELVES
    return (
        f"Expected at least one image, but found none in {name}.{others} "
        f"Looked for {' '.join(sorted(IMAGE_EXTENSIONS))}."
    )
