"""Visual prototypes: one mean example image per class, in the space of the vision encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from trustvlm.exceptions import ArtefactError, InputError
from trustvlm.files import write_bytes
from trustvlm.scores.arrays import as_labels, as_matrix, class_sums, row_blocks, unit_rows

_FORMAT = "trustvlm.prototypes/1"
# Larger labels are no class indices: prototypes of so many classes fit no memory.
_MOST_CLASSES = 2**31

NO_PROTOTYPE = -1.0
"""Cosine that counts where a class has no shots: the least there is, since nothing verifies it.

Scores that add up evidence leave the term of such a class out instead. What is only shown, as by
`PrototypeBank.similarities`, says NaN.
"""


class PrototypeBank:
    """One prototype per class: the mean of the un-normalised shots, scaled to length one.

    `P_c = m_c / |m_c|`,  `m_c = (1/N_c) * sum of E(x)` over the `N_c` shots of class c.

    The bank keeps the sum and the number of shots of each class, so shots can be added, removed
    and banks merged at any time. A class without shots is a stated state, not an error: its
    prototype does not exist, `present_` is False for it, and `NO_PROTOTYPE` says how it counts.

    Attributes
    ----------
    counts_ : ndarray
        `(C,)` int64, shots per class.
    sums_ : ndarray
        `(C, d)` float64, sum of the shots' features per class.

    Notes
    -----
    Dong et al. 2025 (arXiv 2505.23745), section 3. Averaging comes before normalising.

    Examples
    --------
    >>> bank = PrototypeBank().fit([[3.0, 0.0], [0.0, 1.0]], [0, 0], n_classes=2)
    >>> bank.prototypes_[0].round(4)
    array([0.9487, 0.3162])
    >>> bank.counts_, bank.present_
    (array([2, 0]), array([ True, False]))
    """

    counts_: NDArray[np.int64]
    sums_: NDArray[np.float64]

    def fit(
        self, features: ArrayLike, labels: ArrayLike, *, n_classes: int | None = None
    ) -> PrototypeBank:
        """Learn the prototypes from `(n, d)` features and `(n,)` integer labels.

        Parameters
        ----------
        features
            `(n, d)` un-normalised features of the shots.
        labels
            `(n,)` class indices. Names of classes are refused: only the caller knows in which order
            the columns of the logits have them.
        n_classes
            C, which may exceed the classes seen; by default the largest label + 1.

        Raises
        ------
        InputError
            For NaN, rows of zeros, labels that are texts or out of range, or shapes that do not
            fit.

        Examples
        --------
        >>> names, labels = ["cat", "dog"], ["dog", "cat"]
        >>> bank = PrototypeBank().fit(np.eye(2), [names.index(label) for label in labels])
        >>> bank.counts_
        array([1, 1])
        """
        array = as_matrix(features, "features", nonzero=True)
        if n_classes is None:
            every = as_labels(labels, "labels", n_classes=_MOST_CLASSES)
            n_classes = int(np.max(every, initial=-1)) + 1
        if n_classes < 1:
            raise InputError(f"Expected `n_classes` to be at least 1, but got {n_classes}.")
        self.counts_ = np.zeros(n_classes, dtype=np.int64)
        self.sums_ = np.zeros((n_classes, array.shape[1]), dtype=np.float64)
        return self.add(array, labels)

    def add(self, features: ArrayLike, labels: ArrayLike) -> PrototypeBank:
        """Add shots to classes that the bank knows.

        Examples
        --------
        >>> bank = PrototypeBank().fit([[1.0, 0.0]], [0], n_classes=2)
        >>> bank.add([[0.0, 2.0]], [1]).counts_
        array([1, 1])
        """
        sums, counts = self._summed(features, labels)
        self.sums_ = self.sums_ + sums
        self.counts_ = self.counts_ + counts
        self.__dict__.pop("prototypes_", None)
        return self

    def remove(self, features: ArrayLike, labels: ArrayLike) -> PrototypeBank:
        """Take shots out again that were given to `fit` or `add`.

        Raises
        ------
        InputError
            If a class would be left with fewer than zero shots.

        Examples
        --------
        >>> bank = PrototypeBank().fit([[1.0, 0.0], [0.0, 1.0]], [0, 0])
        >>> bank.remove([[0.0, 1.0]], [0]).prototypes_
        array([[1., 0.]])
        """
        sums, counts = self._summed(features, labels)
        left = self.counts_ - counts
        if (left < 0).any():
            worst = int(np.flatnonzero(left < 0)[0])
            raise InputError(
                f"Expected to remove at most the {self.counts_[worst]} shots that class {worst} "
                f"has, but got {counts[worst]}."
            )
        self.counts_ = left
        # An emptied class is exactly empty: no rounding residue may pose as a direction.
        self.sums_ = np.where(left[:, None] > 0, self.sums_ - sums, 0.0)
        self.__dict__.pop("prototypes_", None)
        return self

    def merge(self, other: PrototypeBank) -> PrototypeBank:
        """Return a new bank with the shots of both; classes and dimensions must be the same.

        Examples
        --------
        >>> a = PrototypeBank().fit([[1.0, 0.0]], [0], n_classes=2)
        >>> b = PrototypeBank().fit([[0.0, 1.0]], [1], n_classes=2)
        >>> a.merge(b).counts_
        array([1, 1])
        """
        if self.shape != other.shape:
            raise InputError(
                f"Expected banks of one shape (classes, dimensions), "
                f"but got {self.shape} and {other.shape}."
            )
        merged = PrototypeBank()
        merged.sums_ = self.sums_ + other.sums_
        merged.counts_ = self.counts_ + other.counts_
        return merged

    def with_prototypes(self, prototypes: ArrayLike, *, unit: bool = False) -> PrototypeBank:
        """Return a bank with the same shots but other, learned prototypes `(C, d)`.

        They are scaled to length one, unless `unit` says that they were: scaling again changes the
        last bits. Changing the shots of that bank forgets them.

        Examples
        --------
        >>> bank = PrototypeBank().fit([[1.0, 0.0]], [0]).with_prototypes([[0.0, 2.0]])
        >>> bank.prototypes_
        array([[0., 1.]])
        """
        learned = np.asarray(prototypes, dtype=np.float64)
        if learned.shape != self.shape:
            raise InputError(
                f"Expected `prototypes` of shape {self.shape}, but got {learned.shape}."
            )
        as_matrix(learned[self.present_], "prototypes", nonzero=True)
        bank = PrototypeBank()
        bank.sums_, bank.counts_ = self.sums_.copy(), self.counts_.copy()
        rows = np.where(self.present_[:, None], learned, 0.0)
        bank.__dict__["prototypes_"] = rows if unit else unit_rows(rows)
        return bank

    @property
    def shape(self) -> tuple[int, int]:
        """C and d: the number of classes, with or without shots, and the length of features.

        Raises
        ------
        InputError
            If the bank has not been fitted.
        """
        if not hasattr(self, "sums_"):
            raise InputError("This PrototypeBank is empty: call fit(features, labels) first.")
        n_classes, dim = self.sums_.shape
        return n_classes, dim

    @property
    def n_classes(self) -> int:
        """C, the number of classes, with or without shots."""
        return self.shape[0]

    @property
    def dim(self) -> int:
        """d, the length of a feature vector."""
        return self.shape[1]

    @property
    def present_(self) -> NDArray[np.bool_]:
        """`(C,)` bool: which classes have at least one shot."""
        _ = self.shape  # raises before `fit`
        return self.counts_ > 0

    @cached_property
    def prototypes_(self) -> NDArray[np.float64]:
        """`(C, d)` float64 unit rows; rows of zeros for classes without shots."""
        lost = self.present_ & ~self.sums_.any(axis=1)
        if lost.any():
            raise InputError(
                f"The shots of class {int(np.flatnonzero(lost)[0])} cancel each other: their mean "
                f"is the zero vector, which has no direction. Add or remove a shot."
            )
        return unit_rows(self.sums_)

    def similarities(self, features: ArrayLike) -> NDArray[np.float64]:
        """Cosine of `(n, d)` features with every prototype, `(n, C)`; NaN for absent classes.

        Examples
        --------
        >>> bank = PrototypeBank().fit([[1.0, 0.0]], [0], n_classes=2)
        >>> bank.similarities([[1.0, 1.0]]).round(4)
        array([[0.7071,    nan]])
        """
        array = self._checked(features)
        result = np.empty((len(array), self.n_classes), dtype=np.float64)
        for rows in row_blocks(len(array), sum(self.shape)):
            result[rows] = unit_rows(array[rows]) @ self.prototypes_.T
        result[:, ~self.present_] = np.nan
        return result

    def save(self, path: str | os.PathLike[str], *, class_names: Sequence[str] = ()) -> None:
        """Write the bank to one safetensors file, whole or not at all."""
        _ = self.shape  # raises before `fit`
        metadata = {"format": _FORMAT, "class_names": "\n".join(class_names)}
        write_bytes(path, save({"sums": self.sums_, "counts": self.counts_}, metadata=metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PrototypeBank:
        """Read a bank that `save` wrote.

        Raises
        ------
        ArtefactError
            If the file is not a bank of this format, or is damaged.
        """
        bank = cls()
        try:
            with safe_open(Path(path), framework="numpy") as stored:
                if (stored.metadata() or {}).get("format") != _FORMAT:
                    raise ArtefactError(f"{path} is not a prototype bank of format {_FORMAT}.")
                bank.sums_ = stored.get_tensor("sums")
                bank.counts_ = stored.get_tensor("counts")
        except (SafetensorError, OSError) as error:
            raise ArtefactError(f"{path} cannot be read as a prototype bank: {error}") from error
        return bank

    def _summed(
        self, features: ArrayLike, labels: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        array = self._checked(features)
        n_classes = len(self.counts_)
        index = as_labels(labels, "labels", n_classes=n_classes, n=len(array))
        sums = class_sums(array, index, n_classes)
        return sums, np.bincount(index, minlength=n_classes).astype(np.int64)

    def _checked(self, features: ArrayLike) -> NDArray[np.floating[Any]]:
        _, dim = self.shape
        array = as_matrix(features, "features", nonzero=True)
        if array.shape[1] != dim:
            raise InputError(
                f"Expected `features` to have {dim} columns like the prototypes, "
                f"but got {array.shape[1]}: they come from another encoder."
            )
        return array
