"""Results of a study: rows of metrics, the samples behind them, and finished cells on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import ArrayLike

from trustvlm.exceptions import InputError
from trustvlm.files import atomic_path, write_text
from trustvlm.metrics import CONVENTIONS
from trustvlm.text import shortened


def readable(text: str) -> str:
    r"""Replace what UTF-8 cannot hold: Python's marks for file names in other encodings.

    Examples
    --------
    >>> readable("caf\udce9")
    'caf?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def _with_readable_texts(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value)
    return tuple(map(_with_readable_texts, value)) if isinstance(value, tuple) else value


# Rows of metrics, and the samples behind them for paired tests.

Row: TypeAlias = Mapping[str, Any]
Samples: TypeAlias = tuple[ArrayLike, ArrayLike]

_NEEDED = ("dataset", "score", "shots", "draw")


class Setting(NamedTuple):
    """The models, protocol and prompt that a row was measured with; empty where it names none.

    A prompt is named as the study names it: by its template, or by the name of templates that
    differ from one data set to the next. It is empty for the model's own.

    Examples
    --------
    >>> Setting("clip-vit-b16", "dinov2-base").label
    'clip-vit-b16 + dinov2-base'
    >>> Setting("clip-vit-b16", "same", "clean", "coop").label
    'clip-vit-b16 + same, protocol clean, prompt coop'
    """

    vlm: str = ""
    vision: str = ""
    protocol: str = ""
    prompt: str = ""

    @property
    def label(self) -> str:
        """The setting in a few words; empty if the rows name none of it."""
        models = " + ".join(filter(None, (self.vlm, self.vision)))
        protocol = self.protocol and f"protocol {self.protocol}"
        return ", ".join(filter(None, (models, protocol, self.describe_prompt())))

    def describe_prompt(self) -> str:
        """Name the prompt, in few words; empty for the model's own.

        Examples
        --------
        >>> Setting(prompt="{} texture.").describe_prompt()
        'prompt "{} texture."'
        """
        prompt = shortened(self.prompt, 60)
        if not prompt:
            return ""
        return f'prompt "{prompt}"' if "{" in prompt else f"prompt {prompt}"

    @property
    def named(self) -> dict[str, str]:
        """What of it has a name, as rows say it."""
        return {key: value for key, value in self._asdict().items() if value}


class Classes(NamedTuple):
    """True classes of a data set's images, `(n,)` indices into `names`."""

    labels: ArrayLike
    names: Sequence[str]


@dataclass(frozen=True)
class RowSet:
    """Some rows, and what they are about.

    Attributes
    ----------
    rows
        Each with `dataset`, `score`, `shots`, `draw` and, where known, `n`.

    Examples
    --------
    >>> about = {"score": "msp", "shots": 16, "draw": 0, "n": 50}
    >>> rows = RowSet([{**about, "dataset": "pets"}, {**about, "dataset": "cars"}])
    >>> rows.sizes, rows.shots
    ({'pets': 50, 'cars': 50}, (16,))
    """

    rows: Sequence[Row]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Test images of each data set, in the order of the rows; 0 where no row says."""
        sizes: dict[str, int] = {}
        for row in self.rows:
            name = str(row["dataset"])
            sizes[name] = max(sizes.get(name, 0), int(row.get("n") or 0))
        return sizes

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets, in the order of the rows."""
        return tuple(self.sizes)

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores, in the order of the rows."""
        return _distinct(row["score"] for row in self.rows if row["score"] is not None)

    @cached_property
    def shots(self) -> tuple[int, ...]:
        """Numbers of shots per class, ascending."""
        return tuple(sorted({int(row["shots"]) for row in self.rows}))

    @cached_property
    def draws(self) -> tuple[int, ...]:
        """Numbers of the draws, ascending."""
        return tuple(sorted({int(row["draw"]) for row in self.rows}))

    @property
    def largest(self) -> int:
        """Largest number of shots; 0 if there are no rows."""
        return max(self.shots, default=0)


@dataclass(frozen=True)
class Results(RowSet):
    """Everything that tables, figures and the page are made from.

    Attributes
    ----------
    rows
        One mapping per cell of the study, with `dataset`, `score`, `shots`, `draw`, the metrics as
        fractions (None or absent where undefined) and `n`; optionally `vlm`, `vision`, `protocol`,
        `prompt`, and `error` where the cell failed. A row that failed for all scores has None as
        score.
    samples
        `(confidence, correct)`, each `(n,)`, of draw 0 at the largest number of shots; the images
        of a data set in one order for all its scores. The key is `(dataset, score)` for the first
        setting of the rows, `(dataset, score, (vlm, vision, protocol, prompt))` for any; what
        stands at the end of a setting and is empty may be left out.
    classes
        True classes by data set, for the gains of single classes.
    reference
        The score that the others are compared to.
    convention
        Of the metrics in `rows`: `exact` or `trustvlm`.
    sets
        Which data set a test set is part of, where its name does not say: those of one data set
        share their shots. By default `pacs/test_sketch` is part of `pacs`.

    Raises
    ------
    InputError
        If rows lack a key or repeat a cell, or for an unknown convention.

    Examples
    --------
    >>> row = {"dataset": "pets", "score": "msp", "shots": 16, "draw": 0, "aurc": 0.12, "n": 50}
    >>> results = Results([row])
    >>> results.datasets, results.scores, results.largest
    (('pets',), ('msp',), 16)
    """

    samples: Mapping[tuple[Any, ...], Samples] = field(default_factory=dict)
    classes: Mapping[str, Classes] = field(default_factory=dict)
    reference: str = "trustvlm"
    convention: str = "exact"
    sets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Files can have names that no output could hold.
        rows = [{k: _with_readable_texts(v) for k, v in row.items()} for row in self.rows]
        object.__setattr__(self, "rows", rows)
        for name in ("samples", "classes"):
            by_name = {_with_readable_texts(k): v for k, v in getattr(self, name).items()}
            object.__setattr__(self, name, by_name)
        if self.convention not in CONVENTIONS:
            raise InputError(
                f"Expected `convention` to be {' or '.join(CONVENTIONS)}, "
                f"but got {self.convention!r}."
            )
        for row in self.rows:
            missing = [key for key in _NEEDED if key not in row]
            if missing:
                raise InputError(
                    f"Expected every row to have {', '.join(_NEEDED)}, "
                    f"but one lacks {', '.join(missing)}: {dict(row)}."
                )
        cells = Counter((*(row[key] for key in _NEEDED), setting_of(row)) for row in self.rows)
        cell, times = max(cells.items(), key=lambda item: item[1], default=((), 1))
        if times > 1:
            *about, setting = cell
            label = f" with {setting.label}" if setting.label else ""
            raise InputError(
                f"Expected one row per cell, but {times} rows are of {tuple(about)}{label}."
            )

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Settings of the rows, in the order of the rows."""
        return _distinct(setting_of(row) for row in self.rows)

    @cached_property
    def failures(self) -> list[Row]:
        """Rows of cells that failed."""
        return [row for row in self.rows if row.get("error")]

    def of(self, setting: Setting) -> Results:
        """Return the part with one setting; its samples have keys `(dataset, score)`."""
        first = self.settings[0] if self.rows else setting
        samples = {
            (key[0], key[1]): sample
            for key, sample in self.samples.items()
            if (first if len(key) == 2 else Setting(*key[2])) == setting
        }
        rows = [row for row in self.rows if setting_of(row) == setting]
        return replace(self, rows=rows, samples=samples)

    @cached_property
    def by_score(self) -> dict[tuple[str, int], list[Row]]:
        """Rows by score and number of shots; those that failed as a whole are under every score."""
        rows: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in self.rows:
            for score in self.scores if row["score"] is None else (row["score"],):
                rows[score, row["shots"]].append(row)
        return rows

    def samples_of(self, dataset: str) -> dict[str, Samples]:
        """Return the samples of every score on one data set."""
        return {key[1]: sample for key, sample in self.samples.items() if key[0] == dataset}

    def set_of(self, dataset: str) -> str:
        """Name the data set that a test set is part of.

        Examples
        --------
        >>> row = {"dataset": "pacs/test_sketch", "score": "msp", "shots": 16, "draw": 0}
        >>> Results([row]).set_of("pacs/test_sketch")
        'pacs'
        """
        return self.sets.get(dataset, dataset.partition("/")[0])


def setting_of(row: Row) -> Setting:
    """Return the setting of a row."""
    return Setting(*(str(row.get(key) or "") for key in Setting._fields))


def value_of(row: Row, metric: str) -> float:
    """Return a metric of a row as a fraction; NaN where it is undefined or the cell failed.

    Examples
    --------
    >>> value_of({"aurc": 0.1}, "aurc"), value_of({"aurc": None}, "aurc")
    (0.1, nan)
    """
    value = row.get(metric)
    return math.nan if value is None or row.get("error") else float(value)


def _distinct(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


# Finished pieces of a study on disk, each named by everything that can change it.


def cell_file(folder: Path, content: Mapping[str, Any]) -> Path:
    """Name the file of a cell by its content: models, images, shots, scores, parameters.

    Examples
    --------
    >>> cell_file(Path("results"), {"shots": 4}).as_posix()
    'results/cells/cc71abf3f57390936ea1.json'
    """
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
    return folder / "cells" / f"{key}.json"


def read_cell(file: Path, *, with_samples: bool = False) -> list[dict[str, Any]] | None:
    """Return the rows of a cell; None if it was not measured, or a file of it is not whole.

    What a full disk or a power failure damaged is measured anew. `with_samples` looks at the file
    of samples beside it, too.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not all(map(_is_row, rows)):
            return None
        if with_samples:
            with zipfile.ZipFile(file.with_suffix(".npz")) as samples:
                wanted = {f"{key}.npy" for row in rows for key in sample_keys(row)}
                if not wanted <= set(samples.namelist()) or samples.testzip() is not None:
                    return None
    # A damaged archive may also seem to be compressed in a way that is not known, or encrypted.
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile):
        return None
    return rows


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(key in row for key in _NEEDED)


def sample_keys(row: Row) -> tuple[str, str]:
    """Name the arrays of confidences and of correctness of a row, in the file of a cell's samples.

    Examples
    --------
    >>> sample_keys({"dataset": "pets/test", "score": "msp"})
    ('pets/test|msp|confidence', 'pets/test|msp|correct')
    """
    confidence, correct = (
        f"{row['dataset']}|{row['score']}|{part}" for part in ("confidence", "correct")
    )
    return confidence, correct


def write_cell(file: Path, rows: Any) -> list[dict[str, Any]]:
    """Keep the rows of a cell, which is finished from now on; return them as they will be read."""
    text = json.dumps(rows, allow_nan=False)
    write_text(file, text)
    kept: list[dict[str, Any]] = json.loads(text)
    return kept


# Raw rows on disk: JSON Lines always, Parquet where pyarrow is installed.

_NESTED = ("parameters", "selection", "versions", "fingerprints", "templates")


def write_rows(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `rows.jsonl`, and `rows.parquet` if the extra `parquet` is there; return the files.

    In Parquet, nested settings are JSON texts, so that rows of different scores fit one schema.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    files = [folder / "rows.jsonl"]
    write_text(files[0], lines)
    if importlib.util.find_spec("pyarrow") is not None:
        import pyarrow
        import pyarrow.parquet

        columns = list(dict.fromkeys(key for row in rows for key in row))
        flat = [
            {
                key: json.dumps(row[key]) if key in _NESTED and key in row else row.get(key)
                for key in columns
            }
            for row in rows
        ]
        files.append(folder / "rows.parquet")
        with atomic_path(files[1]) as temporary:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), temporary)
    return files
