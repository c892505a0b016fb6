"""Pictures sorted into folders by their verdicts, under names that every file system takes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from trustvlm.cells import to_cell
from trustvlm.exceptions import ImageError, InputError, OutputError
from trustvlm.files import local_path, output_error, write_bytes, write_text
from trustvlm.images.errors import DEFAULT_LIMITS, Limits
from trustvlm.images.formats import looks_like_image, recognise
from trustvlm.images.locations import Location
from trustvlm.images.references import ImageSource, content_hash, is_system_folder
from trustvlm.pipeline.verdict import Verdict
from trustvlm.text import UNSAFE

FOLDERS = {"accept": "accepted", "review": "review"}
INDEX = "index.csv"
# A folder that holds this one is nobody's images, see `images.references.is_output_folder`.
_MARK = "_trustvlm/sorting.json"

_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
# Devices of Windows, which are no files whatever comes after the dot.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)", re.IGNORECASE)
_LONGEST = 120
# Rows of a Parquet file that share a path, or have none.
_ROW = re.compile(r"(.*?)(\.\w{1,5})?#(\d+)")


@dataclass
class SortedImages:
    """What became of the pictures that were sorted.

    Attributes
    ----------
    accepted, review
        How many lie in each of the folders, those of an earlier, interrupted run included.
    linked
        How many of them are links.
    failed
        How many could not be read when they were copied.
    """

    accepted: int = 0
    review: int = 0
    linked: int = 0
    failed: int = 0


def safe_name(name: str) -> str:
    """Return a name that every file system takes, and no walk through folders passes over.

    Slashes, signs that Windows forbids and control characters become `_`; names of its devices, and
    of folders that systems make for themselves, get one at the end; dots and blanks at an end go.

    Examples
    --------
    >>> safe_name("cat/dog?"), safe_name("CON.jpg"), safe_name(".hidden "), safe_name("...")
    ('cat_dog_', 'CON_.jpg', '_hidden', '_')
    """
    text = unicodedata.normalize("NFC", name).strip().rstrip(". ")
    text = UNSAFE.sub("_", _FORBIDDEN.sub("_", text))
    if text.startswith("."):
        text = f"_{text[1:]}"
    if match := _DEVICE.match(text):
        text = f"{match[0]}_{text[match.end() :]}"
    while len(text.encode()) > _LONGEST:
        text = text[:-1].rstrip(". ")
    return f"{text}_" if is_system_folder(text) else text or "_"


def check_sorting(folder: str | os.PathLike[str]) -> Path:
    """Return the folder to sort into, or raise before any work is done.

    Raises
    ------
    InputError
        If it is a URL, a file, or holds anything but pictures that were sorted into it before.
    """
    path = local_path(folder)
    if path.exists() and not path.is_dir():
        raise InputError(f"Expected a folder to sort pictures into, but {str(path)!r} is a file.")
    if path.is_dir() and any(path.iterdir()) and not (path / _MARK).is_file():
        raise InputError(
            f"Expected a new or an empty folder to sort pictures into, but {str(path)!r} holds "
            "other files."
        )
    return path


def sort_images(
    verdicts: Sequence[Verdict],
    images: Iterable[ImageSource],
    folder: str | os.PathLike[str],
    *,
    symlink: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> SortedImages:
    """Copy each picture into `accepted/<label>/` or `review/<label>/`.

    `index.csv` says which file came from where; it is written last. No file is ever replaced: run
    again, an interrupted run goes on where it stopped, and one with other verdicts is refused.

    Parameters
    ----------
    verdicts
        Of all images, in their order.
    images
        The images, in the same order; those that could not be read are passed over.
    folder
        A new or an empty folder, or one of the same run, interrupted.
    symlink
        Make symbolic links to pictures that are files on this machine, instead of copies.
    limits
        Bounds on the images.
    progress
        Called with how many are done, and of how many.

    Raises
    ------
    InputError
        If the folder holds something else, or the images are not those of the verdicts.
    OutputError
        If a file cannot be written, or is there with other content.

    Examples
    --------
    >>> import tempfile
    >>> from trustvlm.images.references import InMemoryImage
    >>> verdict = Verdict("a/1.gif", "cat", 1.5, 0.9, "accept", 0.9, 0.6, "dog", "", "")
    >>> folder = Path(tempfile.mkdtemp()) / "sorted"
    >>> sort_images([verdict], [InMemoryImage("a/1.gif", b"GIF89a")], folder)
    SortedImages(accepted=1, review=0, linked=0, failed=0)
    >>> (folder / "accepted" / "cat" / "1.gif").read_bytes()
    b'GIF89a'
    """
    target, names = check_sorting(folder), _names(verdicts)
    plan = json.dumps([symlink, *([row.path, row.decision, name] for row, name in names)])
    _begin(target, content_hash(plan.encode()))
    result, rows, there = SortedImages(), [], set()
    for number, (named, image) in enumerate(zip_longest(names, images), start=1):
        if named is None or image is None or named[0].path != image.path:
            raise InputError(
                "Expected the images of the verdicts in their order, but got "
                f"{'no more' if image is None else repr(image.path)} for number {number}. If "
                "images were added or removed meanwhile, run the same again, into a new folder."
            )
        row, name = named
        file, error = "", row.error
        if row.decision in FOLDERS:
            try:
                file, linked = _put(image, target, name, symlink=symlink, limits=limits)
                if file not in there:  # an image may be listed twice
                    result.linked += linked
                    result.accepted += row.decision == "accept"
                    result.review += row.decision == "review"
                there.add(file)
            except ImageError as failure:
                error = str(failure)
                result.failed += 1
        rows.append((row.path, file, row.decision, row.label, error))
        if progress is not None:
            progress(number, len(names))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "file", "decision", "label", "error"))
    writer.writerows([to_cell(cell) for cell in row] for row in rows)
    write_text(target / INDEX, text.getvalue())
    return result


def _begin(folder: Path, plan: str) -> None:
    """Mark a folder as one of sorted pictures, or refuse one of another run."""
    mark = folder / _MARK
    content = json.dumps({"plan": plan}) + "\n"
    if not mark.exists():
        write_text(mark, content)
    elif mark.read_text("utf-8") != content:
        raise InputError(
            f"Expected a new folder, but {str(folder)!r} holds pictures of another run, whose "
            "labels or decisions are others. Name a new one, or move it away."
        )


def _put(
    image: ImageSource, folder: Path, name: str, *, symlink: bool, limits: Limits
) -> tuple[str, bool]:
    """Write one picture or a link to it, unless it is there; return its name, and if it links."""
    source: Path | None = getattr(image, "file", None)
    if symlink and source is not None:
        target = folder / name
        if not (target.is_symlink() and target.readlink() == source.absolute()):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.absolute())
            except OSError as error:
                raise output_error(target, error) from error
        return name, True
    content = image.read(limits)
    if not looks_like_image(name):
        image_format = recognise(content)
        name += "" if image_format is None else f".{image_format.name.lower()}"
    target = folder / name
    if not os.path.lexists(target):
        write_bytes(target, content)
    elif target.is_symlink() or not target.is_file() or target.read_bytes() != content:
        raise OutputError(
            f"{str(target)!r} is there with other content, and nothing is replaced. Sort into a "
            "new folder."
        )
    return name, False


def _names(verdicts: Iterable[Verdict]) -> list[tuple[Verdict, str]]:
    """Return each verdict with the name of its file; no two names differ in case alone."""
    rows = list(verdicts)
    sorted_rows = [row for row in rows if row.decision in FOLDERS]
    folders = _distinct({label: safe_name(label) for label in {row.label for row in sorted_rows}})
    files = {}
    for kind, folder in FOLDERS.items():
        of_kind = [row for row in sorted_rows if row.decision == kind]
        for label in {row.label for row in of_kind}:
            names = {row.path: _file_name(row.path) for row in of_kind if row.label == label}
            for path, name in _distinct(names).items():
                files[kind, label, path] = f"{folder}/{folders[label]}/{name}"
    return [(row, files.get((row.decision, row.label, row.path), "")) for row in rows]


def _file_name(path: str) -> str:
    name = PurePosixPath(path.replace("\\", "/")).name
    if Location(path).is_url:
        name = PurePosixPath(unquote(urlsplit(path).path)).name
    elif match := _ROW.fullmatch(name):
        name = f"{match[1]}-{match[3]}{match[2] or ''}"
    suffix = PurePosixPath(name).suffix if looks_like_image(name) else ""
    name = safe_name(name.removesuffix(suffix)) + suffix
    # Without an ending its format gives one, which must not make it the name of another picture.
    return name if looks_like_image(name) else _with_digest(name, path)


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Put a digest of the key into names that some file system does not tell apart."""
    alike: dict[str, list[str]] = {}
    for key, name in names.items():
        alike.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(key)
    return {
        key: _with_digest(names[key], key) if len(keys) > 1 else names[key]
        for keys in alike.values()
        for key in keys
    }


def _with_digest(name: str, key: str) -> str:
    digest = content_hash(key.encode("utf-8", "backslashreplace"))[:8]
    suffix = PurePosixPath(name).suffix if looks_like_image(name) else ""
    return f"{name.removesuffix(suffix)}-{digest}{suffix}"
