"""Folders in object storage, through fsspec: objects are written whole, read and listed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from trustvlm.environment import require
from trustvlm.exceptions import TrustVLMError
from trustvlm.files import file_system, said
from trustvlm.text import without_credentials


@dataclass(frozen=True)
class RemoteFolder:
    """A prefix in storage that fsspec reaches, such as `s3://bucket/folder`.

    Object stores replace an object in one step: readers see the old one or the new one
    whole. Nothing else is promised by all of them: no appending, no renaming, no locks.

    Parameters
    ----------
    url
        Of the folder.

    Raises
    ------
    OSError
        From every method, with a message that holds no credentials, where the service refuses or
        does not answer; `FileNotFoundError` where there is no such object.
    MissingExtraError, InputError
        From every method, if a package for the scheme is missing, or the scheme unknown.

    Examples
    --------
    >>> folder = RemoteFolder("memory://examples")
    >>> folder.write("a.txt", b"whole")
    >>> folder.read("a.txt"), folder.sizes()
    (b'whole', {'a.txt': 5})
    >>> folder.remove("a.txt")
    >>> folder.sizes()
    {}
    """

    url: str

    def __str__(self) -> str:
        return without_credentials(self.url.rstrip("/"))

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(f"{self.url.rstrip('/')}/{name}")

    def read(self, name: str, most: int | None = None) -> bytes:
        """Return an object, or its first bytes."""
        with self._reached(f"Reading {self}") as (files, path):
            return read_object(files, f"{path}/{name}", most)

    def read_all(self) -> dict[str, bytes]:
        """Return the objects right below, by name and in its order; many are fetched at a time."""
        names = [name for name, size in sorted(self.sizes().items()) if size >= 0]
        with self._reached(f"Reading {self}") as (files, path):
            contents = files.cat([f"{path}/{name}" for name in names]) if names else {}
        return dict(zip(names, map(bytes, contents.values()), strict=True))

    def write(self, name: str, content: bytes) -> None:
        """Write an object, in one step."""
        with self._reached(f"Writing {self}") as (files, path):
            files.pipe_file(f"{path}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object if there is none; whether there was none.

        Some services do not tell: of two who create an object at once, both may then be told so.
        """
        with self._reached(f"Writing {self}") as (files, path):
            if files.exists(f"{path}/{name}"):
                return False
            try:
                files.pipe_file(f"{path}/{name}", content, mode="create")
            except FileExistsError:
                return False
            except Exception:
                # Not every service, and not every version of its package, knows such a request.
                files.pipe_file(f"{path}/{name}", content)
        return True

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._reached(f"Writing {self}") as (files, path), suppress(FileNotFoundError):
            files.rm_file(f"{path}/{name}")

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the objects right below, by name; those of folders are -1."""
        with self._reached(f"Listing {self}") as (files, path):
            # What others have written since must be seen.
            files.invalidate_cache()
            try:
                entries = files.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        sizes = {}
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            is_folder = entry["type"] == "directory"
            # Consoles make an empty object for a folder, and some services list it in itself.
            if str(entry["name"]).strip("/") != path.strip("/"):
                sizes[name] = -1 if is_folder else int(entry["size"] or 0)
        return sizes

    def seconds_between(self, name: str, later: str) -> float:
        """Return the time from one object to another, by the clock of the service."""
        with self._reached(f"Reading {self}") as (files, path):
            first, second = (files.modified(f"{path}/{n}") for n in (name, later))
            return float((second - first).total_seconds())

    @contextmanager
    def _reached(self, purpose: str) -> Iterator[tuple[Any, str]]:
        files, path = file_system(self.url, purpose)
        try:
            yield files, path.rstrip("/")
        except (TrustVLMError, FileNotFoundError):
            raise
        except Exception as error:  # every service has errors of its own
            number = error.errno if isinstance(error, OSError) else None
            raise OSError(number or errno.EIO, said(error), os.fspath(str(self))) from error


def read_object(
    files: Any, path: str, most: int | None = None, *, seconds: float | None = None
) -> bytes:
    """Return an object of one of fsspec's file systems, or its first bytes.

    Raises
    ------
    TimeoutError
        If it takes longer than `seconds`, where the file system is one that can be interrupted.

    Examples
    --------
    >>> import fsspec
    >>> files = fsspec.filesystem("memory")
    >>> files.pipe_file("/examples/b.txt", b"an object")
    >>> read_object(files, "/examples/b.txt", 2)
    b'an'
    """
    # By name: some file systems have other parameters in between.
    bounds = {} if most is None else {"start": 0, "end": most}
    try:
        if not files.async_impl:
            return bytes(files.cat_file(path, **bounds))
        asyn = require("fsspec.asyn", extra="remote", purpose="Reading from storage")
        return bytes(asyn.sync(files.loop, files._cat_file, path, timeout=seconds, **bounds))
    except (FileNotFoundError, TimeoutError):
        raise
    except Exception:
        # An empty object has no first byte: services refuse to send a range of it.
        if bounds and files.info(path).get("size") == 0:
            return b""
        raise
