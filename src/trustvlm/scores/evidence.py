"""Evidence: all that scores may read about a batch of images, checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores.arrays import as_labels, as_matrix, as_nonzero_rows, row_blocks
from trustvlm.scores.prototypes import PrototypeBank

Array = NDArray[Any]
_Derived = TypeVar("_Derived")
PER_IMAGE = ("logits", "features", "image_embeddings")
NO_SHOTS = "Expected at least one shot, but `support_features` has no rows."


@dataclass(frozen=True)
class Evidence:
    """What there is about n images of C classes; only `logits` is always there.

    Attributes
    ----------
    logits
        `(n, C)` zero-shot logits, scaled.
    features
        `(n, d)` features of the vision encoder, un-normalised.
    bank
        Prototypes of the C classes in the vision encoder's space.
    support_features, support_labels, support_logits
        The shots themselves: `(m, d)`, `(m,)` class indices, `(m, C)`.
    image_embeddings, text_embeddings, support_image_embeddings
        The VLM's own space: `(n, e)`, `(C, e)`, `(m, e)`.
    """

    logits: Array
    features: Array | None = None
    bank: PrototypeBank | None = None
    support_features: Array | None = None
    support_labels: Array | None = None
    support_logits: Array | None = None
    image_embeddings: Array | None = None
    text_embeddings: Array | None = None
    support_image_embeddings: Array | None = None

    @classmethod
    def of(
        cls,
        *,
        logits: ArrayLike,
        features: ArrayLike | None = None,
        bank: PrototypeBank | None = None,
        support_features: ArrayLike | None = None,
        support_labels: ArrayLike | None = None,
        support_logits: ArrayLike | None = None,
        image_embeddings: ArrayLike | None = None,
        text_embeddings: ArrayLike | None = None,
        support_image_embeddings: ArrayLike | None = None,
    ) -> Evidence:
        """Check every array against the others; the shots give the bank where none is passed.

        Raises
        ------
        InputError
            For shapes that do not fit, NaN, infinity, rows of zeros, or labels out of range.

        Examples
        --------
        >>> evidence = Evidence.of(logits=[[1.0, 2.0]], features=[[1.0, 0.0]],
        ...                        support_features=[[1.0, 0.0]], support_labels=[1])
        >>> evidence.bank.counts_
        array([0, 1])
        """
        z = as_matrix(logits, "logits")
        n, n_classes = z.shape
        if n_classes < 1:
            raise InputError("Expected `logits` to have at least one column (class), but got none.")
        m = None if support_labels is None else len(np.asarray(support_labels))
        labels = None
        if support_labels is not None:
            labels = as_labels(support_labels, "support_labels", n_classes=n_classes)
        checked = cls(
            logits=z,
            features=_rows(features, "features", n, "logits"),
            bank=bank,
            support_features=_rows(support_features, "support_features", m, "support_labels"),
            support_labels=labels,
            support_logits=_rows(support_logits, "support_logits", m, "support_labels", zero=True),
            image_embeddings=_rows(image_embeddings, "image_embeddings", n, "logits"),
            text_embeddings=_rows(text_embeddings, "text_embeddings", n_classes, "logits' columns"),
            support_image_embeddings=_rows(
                support_image_embeddings, "support_image_embeddings", m, "support_labels"
            ),
        )
        if bank is None and checked.support_features is not None and labels is not None:
            fitted = PrototypeBank().fit(checked.support_features, labels, n_classes=n_classes)
            checked = replace(checked, bank=fitted)
        checked._check_columns()
        return checked

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.logits)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.logits.shape[1])

    def has(self, name: str) -> bool:
        """Tell whether a piece of evidence is there."""
        return getattr(self, name) is not None

    def demand(self, names: Iterable[str], *, by: str) -> None:
        """Raise `EvidenceMissingError` unless every named piece is there."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            raise EvidenceMissingError(
                f"The score `{by}` needs {', '.join(f'`{name}`' for name in missing)}: "
                f"pass {'it' if len(missing) == 1 else 'them'} to scores.compute."
            )

    def piece(self, name: str) -> Array:
        """Return an array that must be there.

        Raises
        ------
        EvidenceMissingError
            If it is not.

        Examples
        --------
        >>> Evidence.of(logits=[[1.0, 2.0]]).piece("logits")
        array([[1., 2.]])
        """
        if not self.has(name):
            raise EvidenceMissingError(f"Expected evidence with `{name}`, but it has none.")
        array: Array = getattr(self, name)
        return array

    def once(self, name: str, compute: Callable[[], _Derived]) -> _Derived:
        """Return what several scores derive from this evidence, computed by the first that asks.

        It is kept as long as this evidence, of which a block of images is a new one.

        Examples
        --------
        >>> evidence = Evidence.of(logits=[[1.0, 2.0]])
        >>> evidence.once("two", lambda: 2), evidence.once("two", lambda: 1 / 0)
        (2, 2)
        """
        if name not in self._derived:
            self._derived[name] = compute()
        derived: _Derived = self._derived[name]
        return derived

    @cached_property
    def _derived(self) -> dict[str, Any]:
        return {}

    def blocks(self) -> Iterable[Evidence]:
        """Cut the images into blocks of bounded memory; the shots are shared by all.

        Evidence that is small enough is its own only block.
        """
        for rows in self.slices(self.n):
            yield self if rows == slice(0, self.n) else self.rows(rows)

    def slices(self, n: int) -> Iterator[slice]:
        """Cut n images of this kind into slices of which scores need bounded memory."""
        columns = self.n_classes + sum(
            array.shape[1] for array in (self.features, self.image_embeddings) if array is not None
        )
        # Scores may compare every image with every shot.
        columns += 0 if self.support_labels is None else len(self.support_labels)
        return row_blocks(n, 4 * columns)

    def rows(self, index: Any) -> Evidence:
        """Return the evidence of some of the images, by slice, mask or indices."""
        parts = {name: getattr(self, name) for name in PER_IMAGE}
        return replace(self, **{k: v[index] for k, v in parts.items() if v is not None})

    def with_images(
        self,
        *,
        logits: ArrayLike,
        features: ArrayLike | None = None,
        image_embeddings: ArrayLike | None = None,
    ) -> Evidence:
        """Return evidence on other images with the same shots, which are not checked again.

        Raises
        ------
        InputError
            As `of`, for the arrays passed here.
        """
        z = as_matrix(logits, "logits")
        if z.shape[1] != self.n_classes:
            raise InputError(
                f"Expected `logits` to have {self.n_classes} columns, but got {z.shape[1]}."
            )
        fresh = replace(
            self,
            logits=z,
            features=_rows(features, "features", len(z), "logits"),
            image_embeddings=_rows(image_embeddings, "image_embeddings", len(z), "logits"),
        )
        fresh._check_columns()
        return fresh

    def _check_columns(self) -> None:
        pairs = (
            ("support_features", "features"),
            ("support_logits", "logits"),
            ("support_image_embeddings", "image_embeddings"),
            ("text_embeddings", "image_embeddings"),
        )
        for name, other in pairs:
            a, b = getattr(self, name), getattr(self, other)
            if a is not None and b is not None and a.shape[1] != b.shape[1]:
                raise InputError(
                    f"Expected `{name}` to have {b.shape[1]} columns like `{other}`, "
                    f"but got {a.shape[1]}."
                )
        if self.bank is None:
            return
        if self.bank.n_classes != self.n_classes:
            raise InputError(
                f"Expected `bank` to have {self.n_classes} classes like `logits` has columns, "
                f"but got {self.bank.n_classes}."
            )
        if self.features is not None and self.features.shape[1] != self.bank.dim:
            raise InputError(
                f"Expected `features` to have {self.bank.dim} columns like the prototypes, "
                f"but got {self.features.shape[1]}: they come from another encoder."
            )


def _rows(
    value: ArrayLike | None, name: str, n: int | None, other: str, *, zero: bool = False
) -> Array | None:
    if value is None:
        return None
    array = as_matrix(value, name) if zero else as_nonzero_rows(value, name)
    if n is not None and len(array) != n:
        raise InputError(
            f"Expected `{name}` to have {n} rows like `{other}`, but got {len(array)}."
        )
    return array


EVIDENCE_NAMES = tuple(field.name for field in fields(Evidence))
