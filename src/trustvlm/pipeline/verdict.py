"""Verdicts: one row per image, in input order, with a label, its trust, a decision and a reason."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from html import escape
from pathlib import Path
from typing import Any

from trustvlm.cells import to_cell
from trustvlm.environment import require
from trustvlm.exceptions import InputError
from trustvlm.files import atomic_path, check_file, is_stream, shown_target, write_text
from trustvlm.images.decoding import thumbnail
from trustvlm.images.inputs import Source, has_own_files
from trustvlm.images.locations import Location
from trustvlm.images.references import shown
from trustvlm.images.tables import TABLE_EXTENSIONS, read_table
from trustvlm.monitoring.shift import ShiftTest
from trustvlm.pipeline.records import EncodedImages
from trustvlm.serialization import json_text, nan_to_null
from trustvlm.text import exact_number


@dataclass(frozen=True)
class Verdict:
    """What is said about one image.

    Attributes
    ----------
    path
        The image, as the user would name it.
    label
        The predicted class; "" if the image could not be read.
    confidence
        The score, higher is more trusted; not a probability. NaN if the image could not be read.
    p_correct
        Probability that the label is right, in [0, 1]; NaN until the model is calibrated.
    decision
        `accept`, `review` or `error`; `pending` in a run that is not complete, where only all its
        images together say what is accepted.
    text_score
        Softmax probability of the label from the text side, in [0, 1].
    image_score
        Cosine of the image with the example images of the label; NaN where there are none.
    runner_up
        The label to consider instead; "" if there is a single class.
    reason
        Why, in plain words.
    error
        What is wrong with the file, and the remedy; "" if nothing is.
    prediction_set
        The labels that the image may have, the most probable first; empty if the image could not
        be read, None if not asked for.
    vlm_label
        What the VLM's text side alone says; "" if the image could not be read, or the verdict is
        from a version that did not say.
    corrected
        Whether the examples, or the other images, made `label` another one than `vlm_label`; None
        if the verdict is from a version that did not say.
    labeller
        Who gave the label, where several labellers are compared; else None.
    """

    path: str
    label: str
    confidence: float
    p_correct: float
    decision: str
    text_score: float
    image_score: float
    runner_up: str
    reason: str
    error: str
    prediction_set: tuple[str, ...] | None = None
    vlm_label: str = ""
    corrected: bool | None = None
    labeller: str | None = None

    def to_row(self) -> dict[str, Any]:
        """Return the columns in order, None for what does not exist; no set if none was asked."""
        row: dict[str, Any] = nan_to_null(asdict(self))
        return {k: v for k, v in row.items() if v is not None or k not in _IF_ASKED}


# What holds for a run, once all its images have verdicts.


@dataclass(frozen=True)
class RunOutcome:
    """What holds for a run as a whole.

    Attributes
    ----------
    n, out_of_distribution
        Readable images, and how many of them resemble none of the classes.
    test
        Of the run against the calibration images; None without a guarantee.
    problems
        Why the guarantee does not cover this run, one sentence each; none if it does, or if there
        is no guarantee.
    threshold
        Labels of confidences above it are accepted, where the threshold follows from the batch;
        None otherwise.
    when_invalid
        What became of accepted labels if there are problems: `review` or `keep`.
    """

    n: int
    out_of_distribution: int
    test: ShiftTest | None = None
    problems: tuple[str, ...] = ()
    threshold: float | None = None
    when_invalid: str = "review"

    @property
    def invalid(self) -> bool:
        """Whether there is a guarantee that does not cover this run."""
        return bool(self.problems)

    @property
    def changes_decisions(self) -> bool:
        """Whether `decide` may change a verdict."""
        return self.threshold is not None or (self.invalid and self.when_invalid == "review")

    def decide(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        """Return the verdicts with the decisions that hold now that the run is complete."""
        return [self._decided(verdict) for verdict in verdicts]

    def _decided(self, verdict: Verdict) -> Verdict:
        if verdict.decision == "pending" and self.threshold is not None:
            accepted = verdict.confidence > self.threshold
            verdict = replace(
                verdict,
                decision="accept" if accepted else "review",
                reason=f"{_batch_words(verdict.confidence, self.threshold)}: {verdict.reason}",
            )
        if self.invalid and self.when_invalid == "review" and verdict.decision == "accept":
            reason = f"the guarantee does not cover this run, else accepted: {verdict.reason}"
            return replace(verdict, decision="review", reason=reason)
        return verdict

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        finite = self.threshold is not None and math.isfinite(self.threshold)
        return {
            "images": self.n,
            "out_of_distribution": self.out_of_distribution,
            "guarantee": None if self.test is None else ("invalid" if self.invalid else "valid"),
            "problems": list(self.problems),
            "when_invalid": self.when_invalid,
            "threshold_above": self.threshold if finite else None,
            "test": None if self.test is None else self.test.to_dict(),
        }


def _batch_words(confidence: float, threshold: float) -> str:
    if math.isinf(threshold):
        return f"{'nothing' if threshold > 0 else 'everything'} in this batch can be accepted"
    where = "above" if confidence > threshold else "not above"
    return (
        f"confidence {exact_number(confidence)} is {where} {exact_number(threshold)}, "
        "the threshold of this batch"
    )


METADATA = "trustvlm.run"
"""Key of what is said of the run in the metadata of a Parquet file: `RunOutcome.to_dict`."""

_SET = "prediction_set"
_IF_ASKED = (_SET, "labeller")
_EVERY = tuple(field.name for field in fields(Verdict))
COLUMNS = tuple(name for name in _EVERY if name not in _IF_ASKED)
_NUMBERS = frozenset({"confidence", "p_correct", "text_score", "image_score"})
_TEXTS = tuple(name for name in COLUMNS if name not in _NUMBERS | {"corrected"})
_READABLE = TABLE_EXTENSIONS | {".parquet"}


class Verdicts(Sequence[Verdict]):
    """Verdicts in input order; a sequence of `Verdict` with columns and writers.

    A notebook shows them as a table with pictures.

    Parameters
    ----------
    rows
        The verdicts.
    folder
        What their paths are relative to, for the pictures; None if nothing says it.
    run
        What holds for the run that they are of, or a slice of; None if nothing is said of it.

    Examples
    --------
    >>> row = Verdict(
    ...     "cat.png", "cat", 1.5, math.nan, "accept", 0.9, 0.6, "dog", "", "",
    ...     vlm_label="cat", corrected=False)
    >>> verdicts = Verdicts([row])
    >>> verdicts[0].label, verdicts.column("confidence")
    ('cat', [1.5])
    >>> verdicts.to_csv().splitlines()[1], verdicts.columns[-2:]
    ('cat.png,cat,1.5,,accept,0.9,0.6,dog,,,cat,false', ('vlm_label', 'corrected'))
    """

    def __init__(
        self, rows: Iterable[Verdict], *, folder: Path | None = None, run: RunOutcome | None = None
    ) -> None:
        self._rows = tuple(rows)
        self._folder = folder
        self.run = run

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Verdicts:
        """Read what `write`, `trustvlm predict` or `verify` wrote; also a folder of Parquet files.

        Other columns are passed over, and all but `path` and `decision` may be missing.

        Raises
        ------
        InputError
            If it is none of these, a cell is no value of its column, or the run is not complete.
        MissingExtraError
            If it is Parquet and the extra `parquet` is not installed.

        Examples
        --------
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "out.csv"
        >>> verdicts = Verdicts([error_verdict("cat.png", "cat.png is empty")])
        >>> _ = verdicts.to_csv(file)
        >>> Verdicts.read(file)[0].error
        'cat.png is empty'
        """
        return cls(_read(Location.of(path)))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Verdicts(self._rows[index], folder=self._folder, run=self.run)
        return self._rows[index]

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._rows)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.decisions().items() if n)
        return f"<Verdicts: {len(self)} images ({counts or 'none'})>"

    def _repr_html_(self) -> str:
        """Show the first verdicts with small pictures in a notebook."""
        return verdicts_html(self._rows, self._folder, repr(self))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: prediction sets and labellers only if these were asked for."""
        asked = {c for c in _IF_ASKED if any(getattr(row, c) is not None for row in self._rows)}
        return tuple(name for name in _EVERY if name not in _IF_ASKED or name in asked)

    def column(self, name: str) -> list[Any]:
        """Return one column as a list, in input order."""
        if name not in self.columns:
            raise InputError(f"There is no column `{name}`; there are {', '.join(self.columns)}.")
        return [getattr(row, name) for row in self._rows]

    def decisions(self) -> dict[str, int]:
        """Count the decisions."""
        made = self.column("decision")
        return {name: made.count(name) for name in DECISIONS}

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame; needs the extra `pandas`."""
        pandas = require("pandas", extra="pandas", purpose="Verdicts.to_pandas()")
        return pandas.DataFrame([asdict(row) for row in self._rows], columns=list(self.columns))

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return CSV text (UTF-8) and write it if a path is given.

        The confidence has all its digits, so that it compares with a threshold as it does here;
        other numbers have nine significant ones. A prediction set is a JSON list, and whether a
        label was corrected is `true` or `false`. Texts that a spreadsheet would run, and control
        characters, are made harmless; `trustvlm` reads them as they were.
        """
        text, columns = io.StringIO(), self.columns
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in self._rows:
            cells = row.to_row()
            writer.writerow([_cell(name, cells.get(name)) for name in columns])
        return _written(text.getvalue(), path)

    def to_jsonl(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return JSON Lines, null for what does not exist, and write it if a path is given."""
        columns, rows = self.columns, [row.to_row() for row in self._rows]
        lines = [json_text({name: row.get(name) for name in columns}) + "\n" for row in rows]
        return _written("".join(lines), path)

    def to_arrow(self) -> Any:
        """Return a pyarrow Table, null for what does not exist; needs the extra `parquet`."""
        pyarrow = require("pyarrow", extra="parquet", purpose="Parquet output")
        kinds = {name: pyarrow.string() for name in self.columns}
        kinds |= dict.fromkeys(_NUMBERS, pyarrow.float64())
        kinds["corrected"] = pyarrow.bool_()
        if _SET in kinds:
            kinds[_SET] = pyarrow.list_(pyarrow.string())
        columns = {
            name: pyarrow.array(nan_to_null(self.column(name)), kinds[name])
            for name in self.columns
        }
        table = pyarrow.table(columns)
        if self.run is None:
            return table
        return table.replace_schema_metadata({METADATA: json.dumps(self.run.to_dict())})

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file; needs the extra `parquet`."""
        parquet = require("pyarrow.parquet", extra="parquet", purpose="Parquet output")
        with atomic_path(path) as temporary:
            parquet.write_table(self.to_arrow(), temporary)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `.csv`, `.jsonl` or `.parquet`, by the name's ending, whole or not at all."""
        suffix = check_output(path)
        if suffix == ".csv":
            self.to_csv(path)
        elif suffix == ".jsonl":
            self.to_jsonl(path)
        else:
            self.to_parquet(path)


DECISIONS = ("accept", "review", "error")
_NEEDED = ("path", "decision")
_OTHERS = tuple(name for name in _EVERY if name not in _NEEDED)


def _read(location: Location) -> Iterator[Verdict]:
    name = shown(location.text)
    is_folder = location.is_folder()
    if not (location.exists() and (is_folder or location.suffix in _READABLE)):
        raise InputError(
            "Expected the output of predict or verify, ending in .csv, .jsonl or .parquet, but "
            f"{f'got {name!r}' if location.exists() else f'there is no {name!r}'}."
        )
    if is_folder or location.suffix == ".parquet":
        rows = _parquet_rows(location, is_folder)
    else:
        table = read_table(location, _NEEDED, _OTHERS, renamed_by="")
        rows = (dict(zip((*_NEEDED, *_OTHERS), cells, strict=True)) for cells in table)
    for number, row in enumerate(rows, start=1):
        yield _verdict(row, f"row {number} of {name!r}")


def _parquet_rows(location: Location, is_folder: bool) -> Iterator[dict[str, Any]]:
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Reading Parquet")
    files = [location]
    if is_folder:
        files = [Location(os.fspath(f)) for f in sorted(Path(location.text).glob("*.parquet"))]
        if not files:
            raise InputError(
                f"Expected {shown(location.text)!r} to be the output of predict or verify, or a "
                "folder of such Parquet files, but it is a folder without any."
            )
    for part in files:
        name = shown(part.text)
        try:
            with part.open() as stream:
                content = parquet.ParquetFile(stream)
                columns = [n for n in _EVERY if n in content.schema_arrow.names]
                if missing := [n for n in _NEEDED if n not in columns]:
                    raise InputError(f"Expected {name!r} to have a column {missing[0]!r}.")
                for batch in content.iter_batches(columns=columns):
                    yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"Expected {name!r} to be Parquet, but got: {error}.") from error


def _verdict(row: dict[str, Any], where: str) -> Verdict:
    """Make a verdict of texts, as CSV and JSON Lines have them, or of values."""

    def text(name: str) -> str:
        return str(row.get(name) or "")

    def refuse(name: str, expected: str) -> InputError:
        return InputError(f"Expected {name} to be {expected} in {where}, but got {row[name]!r}.")

    def number(name: str) -> float:
        value = row.get(name)
        try:
            return math.nan if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            raise refuse(name, "a number") from None

    if text("decision") == "pending":
        raise InputError(
            f"Expected the verdicts of a complete run, but {where} is pending. Run predict again, "
            "which goes on where it stopped."
        )
    if text("decision") not in DECISIONS:
        raise refuse("decision", "accept, review or error")
    labels: Any = row.get(_SET)
    if isinstance(labels, str):
        try:
            labels = json.loads(labels) if labels else None
        except (ValueError, RecursionError):
            labels = 0
    if not (labels is None or isinstance(labels, list)):
        raise refuse(_SET, "a list of labels")
    corrected = {"": None, "true": True, "false": False}.get(text("corrected").lower())
    values: dict[str, Any] = {name: text(name) for name in _TEXTS}
    values |= {name: number(name) for name in _NUMBERS}
    return Verdict(
        **values,
        prediction_set=None if labels is None else tuple(map(str, labels)),
        corrected=False if row.get("corrected") is False else corrected,
        labeller=text("labeller") or None,
    )


def verdicts_from(table: Any) -> list[Verdict]:
    """Return the verdicts of a pyarrow Table, as `Verdicts.to_arrow` made it."""
    rows: list[dict[str, Any]] = [
        {name: math.nan if v is None and name in _NUMBERS else v for name, v in row.items()}
        for row in table.to_pylist()
    ]
    for row in rows:
        if row.get(_SET) is not None:
            row[_SET] = tuple(row[_SET])
    return [Verdict(**row) for row in rows]


def error_verdict(path: str, error: Exception | str) -> Verdict:
    """Return the verdict on an image that could not be used.

    Examples
    --------
    >>> error_verdict("cat.png", OSError("cat.png is empty")).decision
    'error'
    """
    nan = math.nan
    return Verdict(path, "", nan, nan, "error", nan, nan, "", "", str(error), corrected=False)


def failures_of(images: EncodedImages[Any]) -> list[Verdict]:
    """Return the error verdicts on the images that have no embeddings, in input order."""
    return [
        error_verdict(path, error)
        for path, error in zip(images.paths, images.errors, strict=True)
        if error is not None
    ]


def in_order(images: EncodedImages[Any], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Merge the verdicts on the readable ones of some images with the failures, in input order."""
    judged = iter(verdicts)
    return [
        next(judged) if error is None else error_verdict(path, error)
        for path, error in zip(images.paths, images.errors, strict=True)
    ]


def check_output(path: str | os.PathLike[str]) -> str:
    """Return the ending of an output path, or raise before any work is done.

    Standard output (`-`), pipes and devices get CSV unless their name says something else.

    Raises
    ------
    OutputError
        If the file cannot be written, as far as that can be said yet.
    InputError
        If the name does not end in .csv, .jsonl or .parquet.
    MissingExtraError
        If it ends in .parquet and the extra `parquet` is not installed.
    """
    check_file(path)
    suffix = Path(path).suffix.lower()
    if is_stream(path) and suffix not in (".jsonl", ".parquet"):
        return ".csv"
    if suffix not in (".csv", ".jsonl", ".parquet"):
        raise InputError(
            "Expected the output to end in .csv, .jsonl or .parquet, but got "
            f"{shown_target(path)!r}."
        )
    if suffix == ".parquet":
        require("pyarrow", extra="parquet", purpose="Parquet output")
    return suffix


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        write_text(path, text)
    return text


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == _SET or isinstance(value, bool):
        return json_text(value)
    if name == "confidence" and isinstance(value, float):
        return exact_number(value)
    return f"{value:.9g}" if isinstance(value, float) else to_cell(str(value))


# Verdicts as a table with pictures, for notebooks.

_SHOWN, _SIDE, _WORDS = 20, 128, 300
_HEADS = ("", "image", "label", "confidence", "P(correct)", "decision", "reason")
_CELL = "text-align: left; vertical-align: top; padding: 0.3em 0.6em"


def verdicts_html(rows: Sequence[Verdict], folder: Path | None, title: str) -> str:
    """Return an HTML table of the first 20 verdicts, with small pictures where they can be read.

    Parameters
    ----------
    rows
        Of any number.
    folder
        What the paths of the rows are relative to; None leaves the pictures out.
    title
        What stands above the table.
    """
    heads = "".join(f'<th style="{_CELL}">{head}</th>' for head in _HEADS)
    body = "\n".join(_row(row, folder) for row in rows[:_SHOWN])
    more = f"<p>{len(rows) - _SHOWN:,} more are not shown.</p>" if len(rows) > _SHOWN else ""
    return (
        f"<div><p>{escape(title)}</p>\n<table><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>\n{more}</div>"
    )


def folder_of(source: Source) -> Path | None:
    """Return the folder that the paths of a source are relative to; None if there is none.

    Images within archives and Parquet files, and those of URLs, are no files: another file of the
    same name would be another picture.

    Examples
    --------
    >>> folder_of("no/such/photos.csv").as_posix(), folder_of(["a.jpg", "b.jpg"]).as_posix()
    ('no/such', '.')
    >>> folder_of("photos.tar") is None
    True
    """
    if not isinstance(source, (str, os.PathLike)):
        # An iterator is left for those who read the images; other things hold pictures, not files.
        if not isinstance(source, list | tuple | Iterator):
            return None
        items = () if isinstance(source, Iterator) else source
        return None if any(_is_no_file(item) for item in items) else Path()
    if _is_no_file(source):
        return None
    path = Path(Location.of(source).text)
    if path.is_dir():
        return path
    return path.parent if path.suffix.lower() in TABLE_EXTENSIONS | {".txt"} else Path()


def _is_no_file(item: Any) -> bool:
    return not isinstance(item, (str, os.PathLike)) or not has_own_files(item)


def _row(row: Verdict, folder: Path | None) -> str:
    picture = thumbnail(folder / row.path, _SIDE) if folder is not None else ""
    # Notebooks shrink pictures to their column, which long reasons beside it make very narrow.
    image = f'<img src="{picture}" alt="" style="max-width: none">' if picture else ""
    cells = (
        _text(row.path),
        _text(f"{row.label} (the VLM said {row.vlm_label})" if row.corrected else row.label),
        _number(row.confidence),
        _number(row.p_correct),
        _text(row.decision),
        _text(row.error or row.reason),
    )
    return (
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in (image, *cells)) + "</tr>"
    )


def _text(text: str) -> str:
    return escape(text if len(text) <= _WORDS else f"{text[:_WORDS]}…")


def _number(value: float) -> str:
    # NaN, which equals nothing, stands for what does not exist.
    return f"{value:.3f}" if value == value else ""
