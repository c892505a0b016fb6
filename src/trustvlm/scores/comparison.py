"""Images beside the prototypes: cosines that all scores of one batch share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.scores.arrays import cached_rows, pick, softmax, top_probability, unit_rows
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.prototypes import NO_PROTOTYPE, PrototypeBank


@dataclass(frozen=True)
class Comparison(ABC):
    """What text and prototypes say about n images of C classes.

    Attributes
    ----------
    logits
        `(n, C)` zero-shot logits, scaled.
    present
        `(C,)` bool, which classes have a prototype.
    """

    logits: NDArray[Any]
    present: NDArray[np.bool_]

    @cached_property
    def top(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`(n,)` the VLM's prediction, and its probability."""
        return top_probability(self.logits)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """`(n, C)` softmax of the logits."""
        return softmax(self.logits)

    @property
    @abstractmethod
    def table(self) -> NDArray[Any]:
        """`(n, C)` cosines to the prototypes, as computed; `NO_PROTOTYPE` where there is none."""

    @property
    def similarities(self) -> NDArray[np.float64]:
        """`table` in float64."""
        return self.table.astype(np.float64, copy=False)

    @abstractmethod
    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` float64 cosine of each image to one prototype; `NO_PROTOTYPE` without one."""

    def parts(self) -> Iterator[Comparison]:
        """Yield the images, at least once, in slices whose tables stay in the processor's cache."""
        for rows in cached_rows(max(1, len(self.logits))):
            yield Tabulated(self.logits[rows], self.present, self.table[rows])


@dataclass(frozen=True)
class _WithPrototypes(Comparison):
    """Images as unit rows `(n, d)`, and the prototypes `(C, d)`, rows of zeros where none is."""

    directions: NDArray[np.float64]
    prototypes: NDArray[np.float64]

    @cached_property
    def table(self) -> NDArray[Any]:
        cosines: NDArray[Any] = self.directions @ self.prototypes.T
        cosines[:, ~self.present] = NO_PROTOTYPE
        return cosines

    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        # Those to the other prototypes, C times the work, may never be asked for.
        cosines = np.einsum("nd,nd->n", self.directions, self.prototypes[classes])
        return np.where(self.present[classes], cosines, NO_PROTOTYPE)


@dataclass(frozen=True)
class _AsStored(Comparison):
    """Images as rows `(n, d)` of any length, and prototypes of the same precision, their own."""

    rows: NDArray[Any]
    lengths: NDArray[Any]
    prototypes: NDArray[Any]

    @cached_property
    def table(self) -> NDArray[Any]:
        cosines: NDArray[Any] = self.rows @ self.prototypes.T
        cosines /= self.lengths[:, None]
        cosines[:, ~self.present] = NO_PROTOTYPE
        return cosines

    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        products = np.einsum("nd,nd->n", self.rows, self.prototypes[classes])
        cosines = np.asarray(products / self.lengths, dtype=np.float64)
        return np.where(self.present[classes], cosines, NO_PROTOTYPE)


@dataclass(frozen=True)
class Tabulated(Comparison):
    """Images as the cosines `(n, C)` to prototypes, their own or those of all."""

    cosines: NDArray[Any]

    @property
    def table(self) -> NDArray[Any]:
        """The cosines."""
        return self.cosines

    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pick one cosine of each image."""
        return np.asarray(pick(self.cosines, classes), dtype=np.float64)


def compare(evidence: Evidence) -> Comparison:
    """Compare images with the bank's prototypes.

    Examples
    --------
    >>> images = Evidence.of(logits=[[0.0, 0.0]], features=[[2.0, 0.0]],
    ...                      support_features=[[1.0, 0.0]], support_labels=[1])
    >>> compare(images).similarities, compare(images).present
    (array([[-1.,  1.]]), array([False,  True]))
    """
    bank = evidence.bank
    assert isinstance(bank, PrototypeBank)  # noqa: S101 -- the registry demanded it
    prototypes = bank.prototypes_
    compared, comparison = evidence.once(
        "comparison", lambda: (prototypes, compare_with(evidence, bank))
    )
    # A bank that has been given more shots since has other prototypes.
    return comparison if compared is prototypes else compare_with(evidence, bank)


def prototype_similarities(evidence: Evidence) -> NDArray[np.float64]:
    """Return what `PrototypeBank.similarities` does, `(n, C)`, NaN for classes without shots.

    The cosines that a score has computed of the same batch are not computed again.

    Examples
    --------
    >>> prototype_similarities(Evidence.of(logits=[[0.0, 0.0]], features=[[2.0, 0.0]],
    ...                                    support_features=[[1.0, 0.0]], support_labels=[1]))
    array([[nan,  1.]])
    """
    tables = [
        np.where(comparison.present, comparison.similarities, np.nan)
        for comparison in map(compare, evidence.blocks())
    ]
    return np.concatenate([np.empty((0, evidence.n_classes)), *tables])


def compare_with(evidence: Evidence, bank: PrototypeBank) -> Comparison:
    """Compare images with the prototypes of another bank than the evidence's own."""
    return _WithPrototypes(
        evidence.logits, bank.present_, image_directions(evidence), bank.prototypes_
    )


def compare_as_stored(
    evidence: Evidence, lengths: NDArray[Any], prototypes: NDArray[Any]
) -> Evidence:
    """Return evidence whose images are compared in the precision that their features have.

    Parameters
    ----------
    evidence
        With `features` and `bank`.
    lengths
        `(n,)` Euclidean lengths of the features.
    prototypes
        `(C, d)` the bank's, in the precision of the features.

    Examples
    --------
    >>> images = Evidence.of(logits=[[0.0]], features=np.float32([[2.0, 0.0]]),
    ...                      support_features=[[1.0, 0.0]], support_labels=[0])
    >>> stored = compare_as_stored(images, np.float32([2.0]), np.float32([[1.0, 0.0]]))
    >>> compare(stored).similarities
    array([[1.]])
    """
    features, bank = evidence.features, evidence.bank
    assert features is not None  # noqa: S101 -- the caller has them
    assert bank is not None  # noqa: S101
    comparison = _AsStored(evidence.logits, bank.present_, features, lengths, prototypes)
    evidence.once("comparison", lambda: (bank.prototypes_, comparison))
    return evidence


def image_directions(evidence: Evidence) -> NDArray[np.float64]:
    """Return the images' features as unit rows, `(n, d)`."""
    features = evidence.features
    assert features is not None  # noqa: S101 -- the registry demanded it
    return evidence.once("directions", lambda: unit_rows(features))
