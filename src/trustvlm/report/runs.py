"""One evaluation, read back from the file that `trustvlm evaluate --json` wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError

__all__ = ["Run", "read_run"]


@dataclass(frozen=True)
class Run:
    """What one score of one evaluation said of n images.

    Attributes
    ----------
    name
        What the run is called: the name of its file.
    score
        Name of the score.
    told
        The rest of the file: `data`, `model`, `rows` and so on.
    paths, hashes
        n names of images, and the SHA-256 of their contents; None where it is not known.
    truths, labels
        n names of the true and of the predicted classes.
    correct
        `(n,)` bool.
    confidence
        `(n,)` float64, higher is more trusted.
    """

    name: str
    score: str
    told: Mapping[str, Any]
    paths: tuple[str, ...]
    hashes: tuple[str | None, ...]
    truths: tuple[str, ...]
    labels: tuple[str, ...]
    correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def dataset(self) -> str:
        """Name of the data set, as far as the file tells."""
        data = self.told.get("data")
        return str(data.get("name") or "") if isinstance(data, Mapping) else ""


def read_run(path: str | os.PathLike[str], score: str | None = None) -> Run:
    """Read what one score said; by default the model's own.

    Parameters
    ----------
    path
        A file of `trustvlm evaluate --json`.
    score
        Name of one of the scores in it.

    Raises
    ------
    InputError
        If the file cannot be read, is no such file, is of a version that did not keep what was
        said of each image, or has no such score.
    """
    source = Path(path)
    told = _read_json(source)
    if not isinstance(told, dict) or not isinstance(told.get("images"), dict):
        raise InputError(
            f"Expected {source} to hold `images`, as files of `trustvlm evaluate --json` do, but "
            "it does not: evaluate again, with --json."
        )
    images = told.pop("images")
    name = score or str(told.get("score"))
    scores = images.get("scores")
    if not isinstance(scores, dict) or name not in scores:
        there = ", ".join(scores) if isinstance(scores, dict) else "none"
        raise InputError(f"Expected a score that {source} holds ({there}), but got {name!r}.")
    try:
        return _run(source.stem, name, told, images, scores[name])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"Expected the images of {source} to be whole, but they are not "
            f"({type(error).__name__}: {error}): evaluate again, with --json."
        ) from error


def _read_json(source: Path) -> Any:
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        what, remedy = "there is no such file", "check the path"
        raise _no_evaluation(source, what, remedy) from error
    except IsADirectoryError as error:
        what, remedy = "it is a folder", "name the file inside it"
        raise _no_evaluation(source, what, remedy) from error
    except OSError as error:
        what = f"it cannot be read ({error.strerror or type(error).__name__})"
        raise _no_evaluation(source, what, "see to it that you may read it") from error
    except (ValueError, RecursionError) as error:
        what, remedy = "its content is no JSON", "evaluate again, with --json"
        raise _no_evaluation(source, what, remedy) from error


def _no_evaluation(source: Path, what: str, remedy: str) -> InputError:
    return InputError(
        f"Expected {source} to be a file that `trustvlm evaluate --json` wrote, but {what}: "
        f"{remedy}."
    )


def _run(
    name: str,
    score: str,
    told: Mapping[str, Any],
    images: Mapping[str, Any],
    said: Mapping[str, Any],
) -> Run:
    names = [str(label) for label in images["class_names"]]
    truth = np.array(images["label"], dtype=np.int64)
    prediction = np.array(said["prediction"], dtype=np.int64)
    confidence = np.array(said["confidence"], dtype=np.float64)
    n = len(truth)
    columns: Sequence[Sequence[Any]] = (
        images["path"],
        images["sha256"],
        prediction.tolist(),
        confidence.tolist(),
    )
    if any(len(column) != n for column in columns):
        raise ValueError(f"columns of {', '.join(str(len(c)) for c in columns)} for {n} images")
    if not np.isfinite(confidence).all():
        raise ValueError(f"a confidence of `{score}` is not finite")
    if n and min(truth.min(), prediction.min()) < 0:
        raise ValueError("a class has a negative index")
    return Run(
        name=name,
        score=score,
        told=told,
        paths=tuple(str(path) for path in images["path"]),
        hashes=tuple(images["sha256"]),
        truths=tuple(names[i] for i in truth),
        labels=tuple(names[i] for i in prediction),
        correct=truth == prediction,
        confidence=confidence,
    )
