"""What people said about verdicts, kept so that nothing acknowledged is ever lost.

Every method of `FeedbackStore` raises `StorageError` while the disk is full, cannot be written to
or is gone, and works again afterwards.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustvlm.cells import to_cell
from trustvlm.exceptions import InputError, TrustVLMError
from trustvlm.files import local_path, write_bytes, write_text
from trustvlm.images import DEFAULT_LIMITS, ClassList, LabelledImage, Limits
from trustvlm.images.errors import refusal
from trustvlm.images.formats import recognise
from trustvlm.images.references import check_size
from trustvlm.serialization import first_invalid
from trustvlm.sqlite import OtherVersionError, open_database, transaction
from trustvlm.text import counted, printable

if TYPE_CHECKING:
    from trustvlm.serve.schemas import StoredAnswer

_SCHEMA_VERSION = 1
_SCHEMA = (
    """
    CREATE TABLE images (
        image TEXT NOT NULL, model TEXT NOT NULL, name TEXT NOT NULL, verdict TEXT NOT NULL,
        accepted INTEGER NOT NULL, doubt REAL NOT NULL, kept_at TEXT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (image, model)
    )
    """,
    "CREATE INDEX images_by_doubt ON images (model, accepted, doubt, image)",
    """
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        image TEXT NOT NULL, model TEXT NOT NULL, action TEXT NOT NULL, label TEXT NOT NULL,
        folder TEXT NOT NULL, predicted TEXT NOT NULL, confidence REAL, created_at TEXT NOT NULL,
        undone_at TEXT
    )
    """,
    "CREATE INDEX answers_by_image ON answers (image, model, undone_at)",
)
# Made in files of earlier versions as well, which pass over what they do not know.
_ADDED = (
    """
    CREATE TABLE IF NOT EXISTS answer_keys (
        key TEXT NOT NULL, image TEXT NOT NULL, model TEXT NOT NULL, answer INTEGER NOT NULL,
        PRIMARY KEY (key, image, model)
    ) WITHOUT ROWID
    """,
    """
    CREATE INDEX IF NOT EXISTS images_by_label ON images (
        model, json_extract(verdict, '$.label'), accepted, doubt, image)
    """,
)
_SETTINGS = (
    "synchronous = FULL",
    "fullfsync = ON",
    # What was forgotten is overwritten, and not only marked as free.
    "secure_delete = ON",
)
_LATEST = """
    SELECT a.* FROM answers a WHERE a.undone_at IS NULL AND a.id = (
        SELECT max(b.id) FROM answers b
        WHERE b.image = a.image AND b.model = a.model AND b.undone_at IS NULL)
"""
_OPEN = """
    FROM images i WHERE i.model = ? AND NOT EXISTS (
        SELECT 1 FROM answers a
        WHERE a.image = i.image AND a.model = i.model AND a.undone_at IS NULL)
"""
# What a kept image takes: a verdict may have more bytes than a small picture.
_ROW_BYTES = 512
_ROOM = """
    SELECT coalesce(sum(length(content) + length(verdict) + length(name) + 512), 0) FROM images
"""
_ROOM_OF_ONE = _ROOM + " WHERE image = ? AND model = ?"
_PREDICTED = "json_extract(i.verdict, '$.label')"


class StorageError(TrustVLMError):
    """The database cannot be used at the moment; what was asked for did not happen.

    Parameters
    ----------
    message
        What is wrong.
    full
        Whether there is no room, on the disk or by a bound.
    remedy
        What to do, as a sentence.
    """

    def __init__(self, message: str, *, full: bool, remedy: str = "Make room;") -> None:
        super().__init__(message)
        self.full = full
        self.remedy = remedy


@dataclass(frozen=True)
class KeptImage:
    """An image that waits for a person, with the verdict on it.

    Attributes
    ----------
    image
        SHA-256 of the bytes.
    model, name
        Which model judged it, and what the client called it.
    verdict
        As it went over the wire.
    content
        The bytes.
    """

    image: str
    model: str
    name: str
    verdict: Mapping[str, Any]
    content: bytes

    @property
    def doubt(self) -> float:
        """P(correct), or confidence without it: the lowest comes first, what has neither before."""
        p, confidence = self.verdict["p_correct"], self.verdict["confidence"]
        value = confidence if p is None else p
        return -math.inf if value is None else float(value)


@dataclass(frozen=True)
class Answer:
    """What a person said about one image.

    Attributes
    ----------
    image, model
        SHA-256 of the bytes, and which model judged it.
    action
        `accept`, `correct` or `skip`.
    label, folder
        The right class by name and by its folder among the examples; "" for `skip`.
    predicted, confidence
        What the model had said.
    """

    image: str
    model: str
    action: str
    label: str
    folder: str
    predicted: str
    confidence: float = math.nan


@dataclass(frozen=True)
class Submission:
    """An answer that may arrive twice, or too late.

    Attributes
    ----------
    answer
        What was said.
    key
        A text of the client's own, if it may send the answer again: one of the same key on the same
        image is stored once.
    if_unanswered
        Store it only if no answer on the image counts yet.
    """

    answer: Answer
    key: str = ""
    if_unanswered: bool = False


@dataclass(frozen=True)
class Recorded:
    """What became of a submission.

    Attributes
    ----------
    number
        Of the stored answer; None if it was not stored, because another one counts.
    earlier
        The answer that counted before; None if none did.
    """

    number: int | None
    earlier: Mapping[str, Any] | None


class FeedbackStore:
    """Images that wait for a person, and answers, in one SQLite file.

    A write has reached the disk when its method returns (write-ahead log, `synchronous=FULL`), so
    what was acknowledged survives a killed process and a power cut. An answer is never changed:
    undoing marks it. Safe to use from several threads.

    Parameters
    ----------
    path
        The file; it is created if need be, for its owner alone to read.
    max_bytes
        Of images to keep, with the verdicts on them; 0 keeps none.
    max_answers
        To store, those that were undone included, which stay in the file. Beyond them `record` and
        `record_all` raise `StorageError`.

    Raises
    ------
    InputError
        If the file cannot be used, or is something else.

    Examples
    --------
    >>> import tempfile
    >>> store = FeedbackStore(Path(tempfile.mkdtemp()) / "pets.feedback.sqlite")
    >>> number = store.record(Answer("9f2c" * 16, "pets", "correct", "cat", "cat", "dog"))
    >>> [row["label"] for row in store.answers()], store.undo(number), store.answers()
    (['cat'], True, [])
    >>> store.close()
    """

    def __init__(self, path: Path, *, max_bytes: int = 2**31, max_answers: int = 10**6) -> None:
        self.path = path
        self._max_bytes, self._max_answers = max_bytes, max_answers
        self._turn = threading.RLock()
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            other = isinstance(error, OtherVersionError)
            reason = "it is no feedback database of this version" if other else error
            raise InputError(
                f"The feedback database {path} cannot be used: {reason}. Name another file with "
                "--feedback, in a folder that may be written to."
            ) from error

    def _open(self) -> None:
        self._file: tuple[int, int] | None = None
        self._connection = open_database(
            self.path, schema=_SCHEMA, version=_SCHEMA_VERSION, settings=_SETTINGS
        )
        # Nobody has to close a store that is no longer used.
        self._closer = weakref.finalize(self, self._connection.close)
        self._connection.row_factory = sqlite3.Row
        for statement in _ADDED:
            self._connection.execute(statement)
        (self._bytes,) = self._connection.execute(_ROOM).fetchone()
        self._file = self._file_at_path()

    def _file_at_path(self) -> tuple[int, int] | None:
        """Return which file the path leads to; None if there is none in the folder."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self.path.parent.stat()  # a folder that is gone is an error
            return None
        return status.st_dev, status.st_ino

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Give one thread the connection, and say what goes wrong as `StorageError`."""
        with self._turn:
            try:
                # SQLite goes on writing to a file that was deleted, where nobody finds it again.
                file = self._file_at_path()
                if file is None or file != self._file:
                    self._closer()
                    self._open()
                yield self._connection
            except (OSError, sqlite3.Error) as error:
                full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
                raise StorageError(
                    f"The feedback database cannot be used at the moment: {error}.", full=full
                ) from error

    def keep(self, kept: KeptImage) -> bool:
        """Keep an image for review; False if there is no room for it."""
        row = (
            kept.image,
            kept.model,
            kept.name,
            json.dumps(dict(kept.verdict)),
            kept.verdict["decision"] == "accept",
            kept.doubt,
            _now(),
            kept.content,
        )
        with self._database() as connection:
            # A newer verdict on the same image replaces the older one.
            (old,) = connection.execute(_ROOM_OF_ONE, row[:2]).fetchone()
            growth = len(kept.content) + len(row[3]) + len(kept.name) + _ROW_BYTES - old
            if self._bytes + growth > self._max_bytes:
                return False
            connection.execute("REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._bytes += growth
        return True

    def record(self, answer: Answer) -> int:
        """Store an answer durably and return its number."""
        (recorded,) = self.record_all([Submission(answer)])
        return int(recorded.number or 0)

    def record_all(self, submissions: Iterable[Submission]) -> list[Recorded]:
        """Store answers durably, all or none, but for those that arrived before or too late."""
        with self._database() as connection, transaction(connection):
            return [self._record(connection, submission) for submission in submissions]

    def _record(self, connection: sqlite3.Connection, submission: Submission) -> Recorded:
        answer, key = submission.answer, submission.key
        image = (answer.image, answer.model)
        if key:
            query = "SELECT answer FROM answer_keys WHERE key = ? AND image = ? AND model = ?"
            stored = connection.execute(query, (key, *image)).fetchone()
            if stored is not None:
                return Recorded(stored[0], self.earlier(stored[0]))
        query = """
            SELECT * FROM answers WHERE image = ? AND model = ? AND undone_at IS NULL
            ORDER BY id DESC LIMIT 1
        """
        earlier = next(iter(self._rows(query, image)), None)
        if earlier is not None and submission.if_unanswered:
            return Recorded(None, earlier)
        # No answer is ever deleted, so the last number says how many there are.
        (number,) = connection.execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()
        if number >= self._max_answers:
            raise StorageError(
                f"The feedback database holds {number} answers, and may hold no more.",
                full=True,
                remedy="Start the service with another --feedback file, or a larger --max-answers;",
            )
        query = """
            INSERT INTO answers (image, model, action, label, folder, predicted, confidence,
                                 created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """
        # SQLite stores NaN as NULL.
        row = (*vars(answer).values(), _now())
        number = int(connection.execute(query, row).lastrowid or 0)
        if key:
            query = "INSERT INTO answer_keys VALUES (?, ?, ?, ?)"
            connection.execute(query, (key, *image, number))
        return Recorded(number, earlier)

    def earlier(self, number: int) -> dict[str, Any] | None:
        """Return the answer that counted before another on the same image; None if none did."""
        query = """
            SELECT a.* FROM answers a JOIN answers b ON a.image = b.image AND a.model = b.model
            WHERE b.id = ? AND a.id < b.id AND a.undone_at IS NULL ORDER BY a.id DESC LIMIT 1
        """
        return next(iter(self._rows(query, (number,))), None)

    def undo(self, number: int) -> bool:
        """Take an answer back; False if there is none of that number, or it was taken back."""
        query = "UPDATE answers SET undone_at = ? WHERE id = ? AND undone_at IS NULL"
        with self._database() as connection:
            return connection.execute(query, (_now(), number)).rowcount == 1

    def answers(self, model: str | None = None) -> list[StoredAnswer]:
        """Return the latest answer on each image, in the order in which they were given.

        Raises
        ------
        InputError
            If a row is no answer: the file may come from elsewhere.
        """
        from pydantic import ValidationError

        from trustvlm.serve.schemas import STORED_ANSWERS

        chosen, names = ("", ()) if model is None else (" AND a.model = ?", (model,))
        rows = self._rows(f"{_LATEST} {chosen} ORDER BY a.id", names)
        try:
            return STORED_ANSWERS.validate_python(rows)
        except ValidationError as error:
            field, fault = first_invalid(error)
            raise InputError(
                f"The feedback database {self.path} holds an answer that is none (at {field}: "
                f"{fault}). Name another file, or remove the row."
            ) from error

    def queue(self, model: str, limit: int, label: str | None = None) -> list[dict[str, Any]]:
        """Return images without an answer, the most doubtful first, what was accepted last.

        With a `label`, only those of that predicted label.
        """
        columns, order = "i.image, i.name, i.verdict, i.kept_at", "i.accepted, i.doubt, i.image"
        chosen, labels = ("", ()) if label is None else (f"AND {_PREDICTED} = ?", (label,))
        query = f"SELECT {columns} {_OPEN} {chosen} ORDER BY {order} LIMIT ?"
        rows = self._rows(query, (model, *labels, limit))
        return [{**row, "verdict": json.loads(row["verdict"])} for row in rows]

    def n_open(self, model: str) -> int:
        """Return how many images have no answer."""
        (row,) = self._rows(f"SELECT count(*) AS n {_OPEN}", (model,))
        return int(row["n"])

    def n_open_by_label(self, model: str) -> dict[str, int]:
        """Return how many images of each predicted label have no answer, the most first."""
        query = f"SELECT {_PREDICTED} AS label, count(*) AS n {_OPEN} GROUP BY 1 ORDER BY 2 DESC, 1"
        return {str(row["label"]): int(row["n"]) for row in self._rows(query, (model,))}

    def still_open(self, images: Sequence[str], model: str) -> list[str]:
        """Return those of some images that are kept and have no answer."""
        chosen = "AND i.image IN (SELECT value FROM json_each(?))"
        rows = self._rows(f"SELECT i.image {_OPEN} {chosen}", (model, json.dumps(list(images))))
        waiting = {row["image"] for row in rows}
        return [image for image in images if image in waiting]

    def kept(self, image: str, model: str) -> KeptImage | None:
        """Return a kept image; None if there is none."""
        query = "SELECT name, verdict, content FROM images WHERE image = ? AND model = ?"
        rows = self._rows(query, (image, model))
        if not rows:
            return None
        row = rows[0]
        return KeptImage(image, model, row["name"], json.loads(row["verdict"]), row["content"])

    def forget(self, image: str, model: str) -> bool:
        """Remove a kept image, not the answers on it; False if there is none."""
        with self._database() as connection:
            (room,) = connection.execute(_ROOM_OF_ONE, (image, model)).fetchone()
            query = "DELETE FROM images WHERE image = ? AND model = ?"
            connection.execute(query, (image, model))
            self._bytes -= room
        return bool(room)

    def digests(self, model: str) -> Iterator[str]:
        """Yield the SHA-256 of every kept image in ascending order, which is a random one."""
        query = "SELECT image FROM images WHERE model = ? ORDER BY image"
        return (row["image"] for row in self._rows(query, (model,)))

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._closer()

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        with self._database() as connection:
            return [dict(row) for row in connection.execute(query, values)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# From answers to files: a table for people, and labelled images for a better model.


def answers_csv(rows: Iterable[StoredAnswer]) -> str:
    """Return answers as CSV.

    Examples
    --------
    >>> print(answers_csv([]).strip())
    id,image,model,action,label,folder,predicted,confidence,created_at
    """
    from trustvlm.serve.schemas import StoredAnswer

    text = io.StringIO()
    writer = csv.DictWriter(text, list(StoredAnswer.__annotations__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: to_cell(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    )
    return text.getvalue()


def random_sample(store: FeedbackStore, model: str) -> list[StoredAnswer]:
    """Return the answers that are a random sample of the kept images.

    Images in the order of their SHA-256 are in random order: this takes them up to the first one
    that has no answer, or was skipped. Doubtful images alone would be no sample, and whatever is
    calibrated on them would guarantee nothing.
    """
    answers = {row["image"]: row for row in store.answers(model)}
    sample = []
    for digest in store.digests(model):
        row = answers.get(digest)
        if row is None or row["action"] == "skip":
            break
        sample.append(row)
    return sample


def model_of_answers(
    store: FeedbackStore, name: str | None, model: Path | None, option: str
) -> str:
    """Return whose answers are meant: as named, by the file of a model, or the only ones there are.

    Raises
    ------
    InputError
        If that is not clear; the message names the option that says it.
    """
    if name is not None:
        return name
    names = sorted({row["model"] for row in store.answers()})
    if model is not None and model_name(model) in names:
        return model_name(model)
    if not names:
        raise InputError(f"{store.path} holds no answer yet.")
    if len(names) != 1:
        raise InputError(
            f"Expected answers of one model in {store.path}, but there are those of "
            f"{', '.join(names)}. Name one with {option}."
        )
    return names[0]


def model_name(path: Path) -> str:
    """Return what clients call a `.trust` directory: its name without the ending.

    Examples
    --------
    >>> model_name(Path("models/pets.trust"))
    'pets'
    """
    return path.absolute().name.removesuffix(".trust") or "model"


@dataclass(frozen=True)
class AnsweredImage:
    """A kept image, read when it is needed.

    Attributes
    ----------
    path
        Its name in the folder that `write_labelled` writes.
    store, image, model
        Where it is kept.
    """

    path: str
    store: FeedbackStore
    image: str
    model: str

    def read(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the bytes or raise `ImageError`."""
        kept = self.store.kept(self.image, self.model)
        if kept is None:
            remedy = "Send the image again with keep=true"
            raise refusal("missing", self.path, "it is no longer kept", remedy)
        check_size(len(kept.content), limits, self.path)
        return kept.content


def labelled_answers(
    store: FeedbackStore, model: str, classes: ClassList, *, at_most: int | None = None
) -> tuple[list[LabelledImage], str]:
    """Return the answered images of a model that are kept, with the folder of their class.

    Answers that name no class of today, since it was merged or removed, are left out, and the
    sentence that comes second says so; it is "" where there are none.

    Raises
    ------
    InputError
        If there is none, or more than `at_most`.
    """
    images, rows = [], store.answers(model)
    folders = {"", *classes.folders}
    former = [row for row in rows if row["folder"] not in folders]
    if at_most is not None and len(rows) > at_most:
        raise InputError(f"There are {len(rows)} answers, and at most {at_most} are taken here.")
    for row in rows:
        useless = row["action"] == "skip" or row["folder"] not in folders
        kept = None if useless else store.kept(row["image"], model)
        if kept is not None:
            source = AnsweredImage(_file_name(kept), store, row["image"], model)
            images.append(LabelledImage(source, row["folder"]))
    left_out = ""
    if former:
        example = printable(former[0]["folder"])
        left_out = (
            f"{counted(len(former), 'answer')} left out: '{example}', for one, is no class of the "
            "model by now"
        )
    if not images:
        raise InputError(_NO_ANSWERS if not left_out else f"There is nothing else: {left_out}.")
    return images, left_out


_NO_ANSWERS = (
    "There is no answered image: only images that were sent with keep=true, as the review page "
    "does, are kept."
)


def _file_name(kept: KeptImage) -> str:
    """Return a name by the digest: what a client called the image is never a path."""
    image_format = recognise(kept.content)
    suffix = image_format.name.lower() if image_format else "image"
    return f"images/{kept.image}.{suffix}"


def write_labelled(
    store: FeedbackStore,
    rows: Sequence[StoredAnswer],
    folder: Path,
    *,
    shots: Iterable[tuple[Path, str]] = (),
) -> int:
    """Write answered images and `labels.csv`, which `fit` and `calibrate` read; return how many.

    Parameters
    ----------
    store
        Where the images are kept.
    rows
        Answers; those that name no class, or whose image was not kept, are passed over.
    folder
        Where to write; it must not hold a `labels.csv` yet.
    shots
        Further labelled files, which the table lists first, with their full paths.

    Raises
    ------
    InputError
        If there is a `labels.csv` already, or nothing to write.
    """
    table = local_path(folder) / "labels.csv"
    if table.exists():
        raise InputError(f"{table} exists already: name another folder, or move it away.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label"])
    writer.writerows((to_cell(str(path.absolute())), to_cell(label)) for path, label in shots)
    written = 0
    for row in rows:
        kept = store.kept(row["image"], row["model"])
        if row["action"] == "skip" or kept is None:
            continue
        name = _file_name(kept)
        write_bytes(folder / name, kept.content)
        writer.writerow([name, to_cell(row["folder"])])
        written += 1
    if not written:
        raise InputError(_NO_ANSWERS)
    write_text(table, text.getvalue())
    return written
