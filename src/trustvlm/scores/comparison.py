"""Images beside the prototypes: all of these, or those made without the image itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import EvidenceMissingError
from trustvlm.scores.arrays import cached_rows, pick, softmax, top_probability, unit_rows
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.prototypes import PrototypeBank

# Sums of shots shorter than this share of the shots' own lengths are rounding residue.
_NO_DIRECTION = 1e-9


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
        """`(n, C)` cosines to the prototypes, as they were computed; 0 where a class has none."""

    @property
    def similarities(self) -> NDArray[np.float64]:
        """`table` in float64."""
        return self.table.astype(np.float64, copy=False)

    @abstractmethod
    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` float64 cosine of each image to one prototype; 0 where its class has none."""

    def parts(self) -> Iterator[Comparison]:
        """Yield the images, at least once, in slices whose tables stay in the processor's cache."""
        for rows in cached_rows(max(1, len(self.logits))):
            yield _Tabulated(self.logits[rows], self.present, self.table[rows])


@dataclass(frozen=True)
class _WithPrototypes(Comparison):
    """Images as unit rows `(n, d)`, and the prototypes `(C, d)`, rows of zeros where none is."""

    directions: NDArray[np.float64]
    prototypes: NDArray[np.float64]

    @cached_property
    def table(self) -> NDArray[Any]:
        return self.directions @ self.prototypes.T

    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        # Those to the other prototypes, C times the work, may never be asked for.
        return np.asarray(np.einsum("nd,nd->n", self.directions, self.prototypes[classes]))


@dataclass(frozen=True)
class _AsStored(Comparison):
    """Images as rows `(n, d)` of any length, and prototypes of the same precision, their own."""

    rows: NDArray[Any]
    lengths: NDArray[Any]
    prototypes: NDArray[Any]

    @cached_property
    def table(self) -> NDArray[Any]:
        found: NDArray[Any] = self.rows @ self.prototypes.T
        found /= self.lengths[:, None]
        return found

    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        products = np.einsum("nd,nd->n", self.rows, self.prototypes[classes])
        return np.asarray(products / self.lengths, dtype=np.float64)


@dataclass(frozen=True)
class _Tabulated(Comparison):
    """Images as the cosines `(n, C)` to prototypes, their own or those of all."""

    cosines: NDArray[Any]

    @property
    def table(self) -> NDArray[Any]:
        return self.cosines

    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(pick(self.cosines, classes), dtype=np.float64)


@dataclass(frozen=True)
class HeldOut:
    """The shots as images that the prototypes were made without.

    Attributes
    ----------
    comparison
        Of k of the m shots, in their order.
    labels
        `(k,)` int64, their classes.
    kept
        `(k,)` int64, which of the m shots these are.
    """

    comparison: Comparison
    labels: NDArray[np.int64]
    kept: NDArray[np.int64]


def compare(evidence: Evidence) -> Comparison:
    """Compare images with the bank's prototypes.

    Examples
    --------
    >>> found = compare(Evidence.of(logits=[[0.0, 0.0]], features=[[2.0, 0.0]],
    ...                             support_features=[[1.0, 0.0]], support_labels=[1]))
    >>> found.similarities, found.present
    (array([[0., 1.]]), array([False,  True]))
    """
    bank = evidence.bank
    assert isinstance(bank, PrototypeBank)  # noqa: S101 -- the registry demanded it
    prototypes = bank.prototypes_
    known, found = evidence.once("comparison", lambda: (prototypes, compare_with(evidence, bank)))
    # A bank that has been given more shots since has other prototypes.
    return found if known is prototypes else compare_with(evidence, bank)


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


def compare_held_out(evidence: Evidence) -> HeldOut:
    """Compare every shot with prototypes that were made without it.

    The j-th shot of a class is compared with the prototypes of all classes without their j-th
    shots: every prototype lacks one shot, or the true class alone would be at a disadvantage,
    which at two shots per class is grave. A class with fewer shots than j lacks another one of
    its own. A class with a single shot keeps it, and that shot itself is left out of the result:
    without it there is nothing to compare with. The same holds for a shot without which the
    others of its class cancel each other.

    Parameters
    ----------
    evidence
        With `support_features`, `support_labels` and `support_logits`; images and bank are not
        looked at.

    Raises
    ------
    EvidenceMissingError
        If the shots, or their logits, are not there.

    Examples
    --------
    >>> shots = Evidence.of(
    ...     logits=np.empty((0, 2)), support_features=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
    ...     support_labels=[0, 0, 1], support_logits=np.zeros((3, 2)))
    >>> held_out = compare_held_out(shots)
    >>> held_out.kept, held_out.comparison.similarities.round(2)
    (array([0, 1]), array([[0.  , 0.71],
           [0.  , 0.71]]))
    """
    features, labels, logits = (
        evidence.support_features,
        evidence.support_labels,
        evidence.support_logits,
    )
    if features is None or labels is None or logits is None:
        raise EvidenceMissingError(
            "Holding out shots needs `support_features`, `support_labels` and `support_logits`."
        )
    n_classes = evidence.n_classes
    order = np.argsort(labels, kind="stable")
    vectors, classes = features[order].astype(np.float64), labels[order]
    counts = np.bincount(labels, minlength=n_classes)
    first = np.cumsum(counts) - counts
    place = np.arange(len(order)) - first[classes]
    sums, lengths = np.zeros((n_classes, vectors.shape[1])), np.zeros(n_classes)
    np.add.at(sums, classes, vectors)
    np.add.at(lengths, classes, np.linalg.norm(vectors, axis=1))
    several = np.flatnonzero(counts > 1)
    directions = unit_rows(vectors)
    similarities = np.zeros((len(order), n_classes))
    kept = counts[classes] > 1
    for j in range(int(counts.max(initial=0))):
        rest = sums.copy()
        rest[several] -= vectors[first[several] + j % counts[several]]
        lost = np.linalg.norm(rest, axis=1) <= _NO_DIRECTION * lengths
        rest[lost] = 0.0
        of_j = place == j
        similarities[of_j] = directions[of_j] @ unit_rows(rest).T
        kept[of_j] &= ~lost[classes[of_j]]
    back = np.argsort(order, kind="stable")
    chosen = np.flatnonzero(kept[back])
    comparison = _Tabulated(logits[chosen], counts > 0, similarities[back[chosen]])
    return HeldOut(comparison, labels[chosen], chosen)
