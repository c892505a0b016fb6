"""Verdicts as new columns of a Hugging Face data set: `ds.map(on_dataset(model), batched=True)`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trustvlm.exceptions import ArtefactError, InputError
from trustvlm.images.pictures import picture_at
from trustvlm.pipeline.model import TrustVLM
from trustvlm.pipeline.predict import Predictor
from trustvlm.pipeline.verdict import COLUMNS

Batch = Mapping[str, Sequence[Any]]


def on_dataset(
    model: TrustVLM | str | os.PathLike[str], *, column: str = "image", prefix: str = "trust_"
) -> Callable[[Batch], dict[str, list[Any]]]:
    """Return a function for `datasets.Dataset.map(..., batched=True)` that adds verdicts.

    It needs nothing of `datasets` itself: any mapping of column names to lists will do. One image
    that cannot be read is a row with `decision` "error".

    Parameters
    ----------
    model
        A fitted model, or the path of a saved one, whose score judges every image by itself. Only
        with a path can `map` use several processes, and find in its cache what it did before.
    column
        Name of the column of images: PIL images (the feature `Image`), dictionaries with `bytes`
        or `path` (`Image(decode=False)`), bytes, or paths.
    prefix
        Of the new columns: `trust_label`, `trust_confidence` and so on, all but the path.

    Returns
    -------
    callable
        From a batch to its new columns; None for what does not exist.

    Raises
    ------
    InputError
        If the model is not fitted, or its score adapts to the batch, which `map` cuts at will; by
        the callable, if a batch lacks the column, is no batch, or holds something else than images.
    ArtefactError
        As `TrustVLM.load`.

    Examples
    --------
    >>> add = on_dataset("pets.trust")  # doctest: +SKIP
    >>> dataset = dataset.map(add, batched=True)  # doctest: +SKIP
    """
    if isinstance(model, TrustVLM):
        return _Columns(_checked(model), column, prefix)
    path = Path(model).absolute()
    return _SavedColumns(_checked(TrustVLM.load(path)), column, prefix, path)


def _checked(model: TrustVLM) -> Predictor:
    predictor = Predictor(model)
    if predictor.whole_batch:
        raise InputError(
            f"With the score `{model.score}` a verdict depends on the other images of its batch, "
            "and `map` cuts batches anywhere. Fit with another score."
        )
    return predictor


class _Columns:
    """Adds the columns; see `on_dataset`."""

    def __init__(self, predictor: Predictor, column: str, prefix: str) -> None:
        self.predictor, self.column, self.prefix = predictor, column, prefix

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        column = self.column
        if column not in batch:
            raise InputError(
                f"Expected a column `{column}` of images, but the data set has "
                f"{', '.join(map(str, batch))}: name it by `column`."
            )
        values = batch[column]
        if isinstance(values, str | bytes) or not isinstance(values, Sequence):
            raise InputError(
                f"Expected a batch, with a list in the column `{column}`, but got a "
                f"{type(values).__name__}: call `map` with batched=True."
            )
        images = [picture_at(i, value) for i, value in enumerate(values)]
        rows = [v.to_row() for _, part in self.predictor.chunks(images) for v in part]
        return {f"{self.prefix}{name}": [row[name] for row in rows] for name in COLUMNS[1:]}


class _SavedColumns(_Columns):
    """The same of a saved model: pickled as its path, and as what tells it from other models."""

    def __init__(self, predictor: Predictor, column: str, prefix: str, path: Path) -> None:
        super().__init__(predictor, column, prefix)
        self.path, self.stamp = path, _stamp(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (str(self.path), self.column, self.prefix, self.stamp)


def _restored(path: str, column: str, prefix: str, stamp: str) -> Callable[[Batch], Any]:
    if _stamp(Path(path)) != stamp:
        raise ArtefactError(
            f"Expected {path} to be the model that it was, but it has changed since: begin again."
        )
    return on_dataset(path, column=column, prefix=prefix)


def _stamp(path: Path) -> str:
    return hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
