"""The folder of a bulk job, here or in object storage: verdicts, records of parts, a lock."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from trustvlm.exceptions import BulkError, InputError, TrustVLMWarning
from trustvlm.files import url_of, write_bytes
from trustvlm.storage import RemoteFolder

FOLDER = "_trustvlm"


class JobFolder(Protocol):
    """Where verdicts go; `OSError` of every method says why it fails, see `writing`."""

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the files right in the folder, by name."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading; `FileNotFoundError` if there is none."""
        ...

    def write(self, name: str, content: bytes, *, private: bool = False) -> None:
        """Write a file, whole or not at all; a private one can be read by its owner alone."""
        ...

    def record(self, file: str, content: bytes, part: str, line: str) -> None:
        """Write a file of verdicts, unless there are none, and then the line that says so."""
        ...

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Yield the lines of all parts that are done, the last of a part last; and where each is.

        What writers that were killed have left is removed.
        """
        ...

    def locked(self) -> Any:
        """Keep other runs out while the context is entered."""
        ...


def job_folder(output: str | os.PathLike[str]) -> LocalFolder | BucketFolder:
    """Return the folder that a path or URL names.

    Raises
    ------
    InputError
        If it is a file.

    Examples
    --------
    >>> print(job_folder("s3://bucket/verdicts/"))
    s3://bucket/verdicts
    """
    url = url_of(output)
    if url is not None and not url.lower().startswith("file:"):
        return BucketFolder(url)
    path = Path(output if url is None else url.partition("://")[2].removeprefix("localhost"))
    if path.exists() and not path.is_dir():
        raise InputError(f"Expected {str(path)!r} to be a folder, but it is a file.")
    return LocalFolder(path)


@contextmanager
def writing(output: object) -> Iterator[None]:
    """Say what is wrong with the folder of a job where it cannot be written or read.

    Raises
    ------
    BulkError
        If the disk is full, the folder may not be written to or has vanished, or the service
        refuses or does not answer.
    """
    try:
        yield
    except OSError as error:
        remedy = "Check the network and your rights there"
        if not isinstance(output, BucketFolder):
            remedy = "Check the disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Make room"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "Give yourself permission to write there"
        raise BulkError(
            f"Verdicts cannot be written to {str(output)!r} ({error.strerror or error}). What is "
            f"done so far is kept as far as it is still there. {remedy}, and run the same again."
        ) from error


# On this machine.

# What `atomic_path` calls a part's file while it is written.
_ABANDONED = re.compile(r"\.part-\d{6,}-\d{6,}\.parquet\.[a-z0-9_]{8}\.tmp\.parquet")


class LocalFolder:
    """A folder of this machine; the records are the lines of one file, written by one process.

    Parameters
    ----------
    path
        Of the folder; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path / FOLDER / "done.jsonl"

    def __str__(self) -> str:
        return str(self.path)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the files right in the folder, and of folders -1, by name."""
        if not self.path.exists():
            return {}
        with os.scandir(self.path) as files:
            return {file.name: file.stat().st_size if file.is_file() else -1 for file in files}

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return (self.path / name).open("rb")

    def write(self, name: str, content: bytes, *, private: bool = False) -> None:
        """Write a file; a private one can be read by its owner alone."""
        write_bytes(self.path / name, content, private=private)

    def record(self, file: str, content: bytes, part: str, line: str) -> None:  # noqa: ARG002
        """Write a file of verdicts, unless there are none, and then the line that says so."""
        # Opened first: if the folder has vanished, it is not made again for a lone file.
        with open(self._file, "a", encoding="utf-8", opener=_open_private) as stream:
            if content:
                write_bytes(self.path / file, content)
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Yield the lines of all parts that are done, and where each is."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in self.path.glob(".part-*.tmp.parquet"):
            if _ABANDONED.fullmatch(abandoned.name):
                abandoned.unlink(missing_ok=True)
        if not self._file.exists():
            return
        content = self._file.read_bytes()
        # A line without an end was being written when the run was killed.
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            write_bytes(self._file, whole, private=True)
        for number, line in enumerate(whole.splitlines(), 1):
            yield f"Line {number} of {self._file}", line

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out; the system ends this when a process dies.

        Where a file system has no locks, a file stands for one; that of a dead process of this
        machine is taken over (by filelock from 4.2.3 on).

        Raises
        ------
        InputError
            If another run writes there; the message says on which machine.
        BulkError
            If the folder cannot be written to.
        """
        folder = self.path / FOLDER
        holder = folder / "lock.json"
        with writing(self):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = _acquire(folder)
            except Timeout as error:
                described = ""
                with suppress(OSError):
                    described = _describe_holder(holder.read_bytes())
                raise InputError(
                    f"Another run writes to {str(self)!r}{described}. Wait for it, or choose "
                    f"another folder. If it is no more, remove {error.lock_file!r}."
                ) from error
            except BaseException:
                with suppress(OSError):
                    folder.rmdir()
                raise
        try:
            with writing(self):
                holder.write_text(_owner() + "\n", encoding="utf-8")
            yield
        finally:
            with suppress(OSError):
                holder.unlink()
            with suppress(OSError):
                lock.release()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _owner(**more: Any) -> str:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), **more})


def _describe_holder(content: bytes) -> str:
    try:
        owner = json.loads(content)
        return f" (process {owner['pid']} on {owner['host']})"
    except (ValueError, KeyError, TypeError):
        return ""


# What a file system says that has no locks, as some have that lie on other machines.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


def _acquire(folder: Path) -> BaseFileLock:
    lock: BaseFileLock = FileLock(folder / "lock", blocking=False)
    try:
        with warnings.catch_warnings():
            # Some versions of the library themselves take a file for a lock where need be.
            warnings.simplefilter("ignore")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, Timeout) or (
            isinstance(error, OSError) and error.errno not in _NO_LOCKS
        ):
            raise
        lock = SoftFileLock(folder / "lock.held", blocking=False)
        lock.acquire()
    return lock


# In object storage, where nothing is appended to and nothing is locked: a record is an object of
# its own, and the lock is one that its holder writes again and again.

# Seconds from one renewal of a lock to the next, and after which one that is not renewed is
# nobody's.
_RENEWAL, _PATIENCE = 15.0, 60.0


class BucketFolder:
    """A folder in object storage.

    Two runs that write there at once, should the lock fail, do no harm to each other's rows: they
    have agreed on the same job, and write the same objects.

    Parameters
    ----------
    url
        Of the folder.
    """

    def __init__(self, url: str) -> None:
        self._folder = RemoteFolder(url)
        self._own, self._done = self._folder / FOLDER, self._folder / FOLDER / "done"
        self._lost = threading.Event()

    def __str__(self) -> str:
        return str(self._folder)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the objects right in the folder, and of folders -1, by name."""
        return self._folder.sizes()

    def open(self, name: str) -> IO[bytes]:
        """Open an object for reading, which is fetched whole."""
        return io.BytesIO(self._folder.read(name))

    def write(self, name: str, content: bytes, *, private: bool = False) -> None:  # noqa: ARG002
        """Write an object; who can read it is decided by the bucket."""
        self._folder.write(name, content)

    def record(self, file: str, content: bytes, part: str, line: str) -> None:
        """Write an object of verdicts, unless there are none, and then the one that says so."""
        if self._lost.is_set():
            raise BulkError(
                f"Another run has taken over {str(self)!r}, since this one was not heard of. What "
                "is done so far is kept."
            )
        if content:
            self._folder.write(file, content)
        self._done.write(f"{part}.json", f"{line}\n".encode())

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Yield the records of all parts that are done, and where each is."""
        for name, content in self._done.read_all().items():
            yield f"The object {self._done / name}", content

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out, as long as this one renews its lock.

        Raises
        ------
        InputError
            If another run writes there; the message says on which machine.
        BulkError
            If the folder cannot be written to.
        """
        token, ended = secrets.token_hex(8), threading.Event()
        self._lost.clear()
        with writing(self):
            self._take(_owner(token=token, renewed=0).encode())
        renewing = threading.Thread(target=self._renew, args=(token, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            with suppress(OSError):
                if self._is_held_by(token):
                    self._own.remove(_LOCK)

    def _take(self, content: bytes) -> None:
        if self._own.create(_LOCK, content):
            return
        held = self._holder()
        if not _is_dead(held):
            self._wait(held)
        if held:
            warnings.warn(
                f"the run that wrote to {self} before{_describe_holder(held)} is no more: this one "
                "goes on",
                TrustVLMWarning,
                stacklevel=2,
            )
        self._own.write(_LOCK, content)

    def _wait(self, held: bytes) -> None:
        """Return once nobody holds the lock; raise as soon as somebody renews it."""
        waited, pause = 0.0, _RENEWAL / 4
        while held and waited < _PATIENCE:
            threading.Event().wait(pause)
            waited += pause
            content = self._holder()
            if content and content != held:
                raise InputError(
                    f"Another run writes to {str(self)!r}{_describe_holder(content)}. Wait for it, "
                    "or choose another folder."
                )
            if not content:
                return

    def _renew(self, token: str, ended: threading.Event) -> None:
        renewed = 0
        while not ended.wait(_RENEWAL):
            # What does not answer now may do so next time.
            with suppress(OSError):
                if not self._is_held_by(token):
                    self._lost.set()
                    return
                renewed += 1
                self._own.write(_LOCK, _owner(token=token, renewed=renewed).encode())

    def _holder(self) -> bytes:
        """Return the content of the lock; b"" if there is none."""
        try:
            return self._own.read(_LOCK)
        except FileNotFoundError:
            return b""

    def _is_held_by(self, token: str) -> bool:
        return token.encode() in self._holder()


_LOCK = "lock.json"


def _is_dead(held: bytes) -> bool:
    """Whether the process that holds a lock was one of this machine, and is no more."""
    try:
        owner = json.loads(held)
        if owner["host"] != socket.gethostname() or os.name == "nt":
            return False
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return False
