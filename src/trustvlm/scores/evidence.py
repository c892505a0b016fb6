"""Evidence: all that scores may read about a batch of images, checked once.

Of features and prototypes, scores read the cosines: a `Comparison`, which all scores of one batch
share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores.arrays import (
    CACHED_ROWS,
    as_labels,
    as_matrix,
    pick,
    row_blocks,
    softmax,
    top_probability,
    unit_rows,
    zero_shot_logits,
)
from trustvlm.scores.prototypes import NO_PROTOTYPE, PrototypeBank

Array = NDArray[Any]
_Derived = TypeVar("_Derived")
PER_IMAGE = ("logits", "features", "image_embeddings", "given_labels", "label_confidence")
OF_TEXT = ("logits", "support_logits")
LINKS = ("softmax", "sigmoid")
"""What turns logits into probabilities: over the classes, or of each by itself."""
NO_BIAS = (
    "The link `sigmoid` needs the bias of a model that was trained with a sigmoid loss, as SigLIP "
    "was, but there is none (`logit_bias`): use the link `softmax`."
)
NO_SHOTS = "Expected at least one shot, but `support_labels` is empty."


class ShotLogits:
    """Zero-shot logits `(m, C)` of shots, of which rows are computed when they are asked for.

    With thousands of classes the table of all would be the largest there is.

    Parameters
    ----------
    embeddings, texts, logit_scale
        As of `zero_shot_logits`.

    Examples
    --------
    >>> logits = ShotLogits(np.eye(2), np.eye(2), 100.0)
    >>> logits.shape, logits[[1]]
    ((2, 2), array([[  0., 100.]]))
    """

    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(self, embeddings: Array, texts: Array, logit_scale: float) -> None:
        self._embeddings, self._texts, self._scale = embeddings, texts, logit_scale
        self.shape = (len(embeddings), len(texts))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.float64]:
        return zero_shot_logits(self._embeddings[rows], self._texts, logit_scale=self._scale)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Compute all rows."""
        return self[:].astype(dtype or self.dtype, copy=False)


@dataclass(frozen=True)
class Evidence:
    """What there is about n images of C classes.

    Without a VLM there is no text: `logits` and `support_logits` are then zeros, which favour no
    class, and `has` says that they are not there. Only labels from elsewhere can be judged so.

    Attributes
    ----------
    logits
        `(n, C)` zero-shot logits, scaled.
    features
        `(n, d)` features of the vision encoder, un-normalised.
    bank
        Prototypes of the C classes in the vision encoder's space.
    support_features, support_labels, support_logits
        The shots themselves: `(m, d)`, `(m,)` class indices, `(m, C)`; the last may be
        `ShotLogits`.
    image_embeddings, text_embeddings, support_image_embeddings
        The VLM's own space: `(n, e)`, `(C, e)`, `(m, e)`.
    target_logits, target_features, target_image_embeddings
        `(t, C)`, `(t, d)` and `(t, e)` of t unlabelled images like those to come, from which scores
        that adapt to the images learn once, instead of from each batch.
    given_labels, label_confidence
        `(n,)` class indices of labels from elsewhere, which are judged instead of the VLM's; and
        `(n,)` probabilities that came with them, NaN where there is none.
    has_text
        Whether there are logits.
    logit_bias
        b of SigLIP's sigmoid(z + b), which scores with the parameter `link` may take in place of
        the softmax; None for models that were trained without one.
    """

    logits: Array
    features: Array | None = None
    bank: PrototypeBank | None = None
    support_features: Array | None = None
    support_labels: Array | None = None
    support_logits: Array | ShotLogits | None = None
    image_embeddings: Array | None = None
    text_embeddings: Array | None = None
    support_image_embeddings: Array | None = None
    target_logits: Array | None = None
    target_features: Array | None = None
    target_image_embeddings: Array | None = None
    given_labels: NDArray[np.int64] | None = None
    label_confidence: NDArray[np.float64] | None = None
    has_text: bool = True
    logit_bias: float | None = None

    @classmethod
    def of(
        cls,
        *,
        logits: ArrayLike | None = None,
        features: ArrayLike | None = None,
        bank: PrototypeBank | None = None,
        support_features: ArrayLike | None = None,
        support_labels: ArrayLike | None = None,
        support_logits: ArrayLike | ShotLogits | None = None,
        image_embeddings: ArrayLike | None = None,
        text_embeddings: ArrayLike | None = None,
        support_image_embeddings: ArrayLike | None = None,
        target_logits: ArrayLike | None = None,
        target_features: ArrayLike | None = None,
        target_image_embeddings: ArrayLike | None = None,
        given_labels: ArrayLike | None = None,
        label_confidence: ArrayLike | None = None,
        logit_bias: float | None = None,
    ) -> Evidence:
        """Check every array against the others; the shots give the bank where none is passed.

        Without logits there are as many classes as the bank has, or the shots name.

        Raises
        ------
        InputError
            For shapes that do not fit, NaN, infinity, rows of zeros, labels out of range, or if
            neither logits nor features are passed.

        Examples
        --------
        >>> evidence = Evidence.of(logits=[[1.0, 2.0]], features=[[1.0, 0.0]],
        ...                        support_features=[[1.0, 0.0]], support_labels=[1])
        >>> evidence.bank.counts_
        array([0, 1])
        """
        z = (
            _no_text(features, _classes_of(bank, support_labels))
            if logits is None
            else as_matrix(logits, "logits")
        )
        n, n_classes = z.shape
        if n_classes < 1:
            raise InputError("Expected `logits` to have at least one column (class), but got none.")
        labels, m = None, None
        if support_labels is not None:
            labels = as_labels(support_labels, "support_labels", n_classes=n_classes)
            m = len(labels)
        target_z = None if target_logits is None else as_matrix(target_logits, "target_logits")
        t = None if target_z is None else len(target_z)
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
            target_logits=target_z,
            target_features=_rows(target_features, "target_features", t, "target_logits"),
            target_image_embeddings=_rows(
                target_image_embeddings, "target_image_embeddings", t, "target_logits"
            ),
            has_text=logits is not None,
            logit_bias=_bias(logit_bias),
            **_given(given_labels, label_confidence, n, n_classes),
        )
        if logits is None and m is not None:
            checked = replace(checked, support_logits=np.broadcast_to(0.0, (m, n_classes)))
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
        return getattr(self, name) is not None and (self.has_text or name not in OF_TEXT)

    def demand(self, names: Iterable[str], *, by: str) -> None:
        """Raise `EvidenceMissingError` unless every named piece is there."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            raise EvidenceMissingError(
                f"The score `{by}` needs {', '.join(f'`{name}`' for name in missing)}: "
                f"pass {'it' if len(missing) == 1 else 'them'} to scores.compute, or add "
                f"{'it' if len(missing) == 1 else 'them'} to the file of arrays."
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
        array: Any = getattr(self, name)  # `ShotLogits` are indexed as arrays are
        if array is None:
            raise EvidenceMissingError(f"Expected evidence with `{name}`, but it has none.")
        piece: Array = array
        return piece

    def probabilities(self, link: str) -> NDArray[np.float64]:
        """`(n, C)` probabilities of the classes from the text side.

        Parameters
        ----------
        link
            `softmax`: of each class among these; they add up to 1. `sigmoid`: of each class by
            itself, that its text describes the image; they do not depend on the other classes.

        Raises
        ------
        InputError
            For another link, or for the sigmoid without a `logit_bias`.

        Examples
        --------
        >>> evidence = Evidence.of(logits=[[12.0, 10.0]], logit_bias=-10.0)
        >>> evidence.probabilities("softmax").round(3), evidence.probabilities("sigmoid").round(3)
        (array([[0.881, 0.119]]), array([[0.881, 0.5  ]]))
        """
        if link not in LINKS:
            raise InputError(f"Expected `link` to be {' or '.join(LINKS)}, but got {link!r}.")
        if link == "softmax":
            return softmax(self.logits)
        if self.logit_bias is None:
            raise InputError(NO_BIAS)
        p: NDArray[np.float64] = scipy.special.expit(
            self.logits.astype(np.float64) + self.logit_bias
        )
        return p

    def judged(self, link: str = "softmax") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return `(n,)` labels, given ones or else the most probable, and their probabilities.

        Raises
        ------
        InputError
            As `probabilities`.

        Examples
        --------
        >>> evidence = Evidence.of(logits=[[12.0, 10.0]], logit_bias=-10.0, given_labels=[1])
        >>> evidence.judged("sigmoid")
        (array([1]), array([0.5]))
        """
        if link == "softmax":
            return self.once(
                "judged", lambda: labels_and_probabilities(self.logits, self.given_labels)
            )
        p = self.probabilities(link)
        # Of the logits, which the sigmoid may round to equal values.
        given = self.given_labels
        labels = np.asarray(self.logits.argmax(axis=1) if given is None else given, dtype=np.int64)
        return labels, pick(p, labels)

    def once(self, name: str, compute: Callable[[], _Derived], of: object = None) -> _Derived:
        """Return what several scores derive from this evidence, computed by the first that asks.

        It is kept as long as this evidence, of which a block of images is a new one. What is
        derived from something else as well, such as a fitted model, is computed once `of` each.

        Examples
        --------
        >>> evidence = Evidence.of(logits=[[1.0, 2.0]])
        >>> evidence.once("two", lambda: 2), evidence.once("two", lambda: 1 / 0)
        (2, 2)
        """
        kept: dict[tuple[str, int], Any] = self.__dict__.setdefault("_derived", {})
        key = (name, id(of))
        if key not in kept:
            # What it is derived of is kept beside it, so that nothing else can get its identity.
            kept[key] = (of, compute())
        derived: _Derived = kept[key][1]
        return derived

    def learned(self, name: str, learn: Callable[[], _Derived]) -> _Derived:
        """Return what is learned from the shots, by the first that asks, whatever the images.

        It is kept for all evidence that was made of this one with the same shots.

        Examples
        --------
        >>> shots = Evidence.of(logits=[[1.0, 2.0]])
        >>> shots.with_images(logits=[[0.0, 1.0]]).learned("two", lambda: 2)
        2
        >>> shots.learned("two", lambda: 1 / 0)
        2
        """
        kept: dict[str, Any] = self.__dict__.setdefault("_learned", {})
        if name not in kept:
            kept[name] = learn()
        learned: _Derived = kept[name]
        return learned

    def _with_same_shots(self, **images: Any) -> Evidence:
        other = replace(self, **images)
        other.__dict__["_learned"] = self.__dict__.setdefault("_learned", {})
        return other

    def read_only(self) -> Evidence:
        """Return this evidence with arrays that nobody can write to, for code from outside.

        All scores of a batch read the same arrays: one that worked in place would change the
        others. What was derived and learned is shared.

        Examples
        --------
        >>> Evidence.of(logits=[[1.0, 2.0]]).read_only().logits[0, 0] = 3.0
        Traceback (most recent call last):
        ValueError: assignment destination is read-only
        """
        views = {}
        for name in EVIDENCE_NAMES:
            if isinstance(array := getattr(self, name), np.ndarray):
                views[name] = array.view()
                views[name].flags.writeable = False
        other = self._with_same_shots(**views)
        other.__dict__["_derived"] = self.__dict__.setdefault("_derived", {})
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was derived out of copies and pickles: it may hold functions."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """`(n, d)` features as unit rows.

        Raises
        ------
        EvidenceMissingError
            If there are no features.
        """
        return unit_rows(self.piece("features"))

    def blocks(self, *, by_shot: bool = True) -> Iterable[Evidence]:
        """Cut the images into blocks of bounded memory; the shots are shared by all.

        Evidence that is small enough is its own only block. `by_shot` as of `slices`.
        """
        n = len(self.logits)
        for rows in self.slices(n, by_shot=by_shot):
            yield self if rows == slice(0, n) else self.rows(rows)

    def slices(self, n: int, *, by_shot: bool = True) -> Iterator[slice]:
        """Cut n images of this kind into slices of which scores need bounded memory.

        With `by_shot` they may compare every image with every shot; larger blocks cost less.
        """
        columns = self.logits.shape[1] + sum(
            array.shape[1] for array in (self.features, self.image_embeddings) if array is not None
        )
        if not by_shot:
            return row_blocks(n, columns)
        columns += 0 if self.support_labels is None else len(self.support_labels)
        return row_blocks(n, 4 * columns)

    def rows(self, index: Any) -> Evidence:
        """Return the evidence of some of the images, by slice, mask or indices."""
        parts = {name: getattr(self, name) for name in PER_IMAGE}
        return self._with_same_shots(**{k: v[index] for k, v in parts.items() if v is not None})

    @property
    def target_arrays(self) -> dict[str, Any]:
        """The arrays of the target's images, by name; none if no images were passed."""
        arrays = {name: getattr(self, name) for name in EVIDENCE_NAMES if name.startswith("target")}
        return {name: array for name, array in arrays.items() if array is not None}

    def target(self) -> Evidence | None:
        """Return the images of the target, with the same shots; None if none were passed.

        Raises
        ------
        EvidenceMissingError
            If they lack the features, or the embeddings, that the shots have.
        """
        if self.target_logits is None:
            return None
        for name in ("features", "image_embeddings"):
            if self.has(f"support_{name}"):
                self.demand([f"target_{name}"], by="the target's images")
        return replace(
            self,
            logits=self.target_logits,
            features=self.target_features,
            image_embeddings=self.target_image_embeddings,
            target_logits=None,
            target_features=None,
            target_image_embeddings=None,
            given_labels=None,
            label_confidence=None,
        )

    def with_images(
        self,
        *,
        logits: ArrayLike | None = None,
        features: ArrayLike | None = None,
        image_embeddings: ArrayLike | None = None,
        given_labels: ArrayLike | None = None,
        label_confidence: ArrayLike | None = None,
    ) -> Evidence:
        """Return evidence on other images with the same shots, which are not checked again.

        Raises
        ------
        InputError
            As `of`, for the arrays passed here; or for logits where the shots have none.
        """
        n_classes = self.logits.shape[1]
        if (logits is not None) != self.has_text:
            raise InputError(
                f"Expected {'logits, as' if self.has_text else 'no logits, as there are none'} "
                "of the shots."
            )
        z = _no_text(features, n_classes) if logits is None else as_matrix(logits, "logits")
        if z.shape[1] != n_classes:
            raise InputError(
                f"Expected `logits` to have {n_classes} columns, but got {z.shape[1]}."
            )
        fresh = self._with_same_shots(
            logits=z,
            features=_rows(features, "features", len(z), "logits"),
            image_embeddings=_rows(image_embeddings, "image_embeddings", len(z), "logits"),
            **_given(given_labels, label_confidence, len(z), n_classes),
        )
        fresh._check_columns()
        return fresh

    def _check_columns(self) -> None:
        pairs = (
            ("support_features", "features"),
            ("support_logits", "logits"),
            ("support_image_embeddings", "image_embeddings"),
            ("target_logits", "logits"),
            ("target_features", "support_features"),
            ("target_image_embeddings", "support_image_embeddings"),
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
        n_classes, dim = self.bank.shape
        if n_classes != self.logits.shape[1]:
            raise InputError(
                f"Expected `bank` to have {self.logits.shape[1]} classes like `logits` has "
                f"columns, but got {n_classes}."
            )
        if self.features is not None and self.features.shape[1] != dim:
            raise InputError(
                f"Expected `features` to have {dim} columns like the prototypes, "
                f"but got {self.features.shape[1]}: they come from another encoder."
            )


def _rows(
    value: ArrayLike | ShotLogits | None,
    name: str,
    n: int | None,
    other: str,
    *,
    zero: bool = False,
) -> Any:
    if value is None:
        return None
    array = value if isinstance(value, ShotLogits) else as_matrix(value, name, nonzero=not zero)
    if n is not None and len(array) != n:
        raise InputError(
            f"Expected `{name}` to have {n} rows like `{other}`, but got {len(array)}."
        )
    return array


_NEITHER = "Expected `logits`; or, without a VLM, `features` and shots (or a bank)."


def _classes_of(bank: PrototypeBank | None, support_labels: ArrayLike | None) -> int:
    """Return how many classes there are where no logits say it."""
    if bank is not None:
        return bank.shape[0]
    if support_labels is None:
        raise InputError(_NEITHER)
    labels = as_labels(support_labels, "support_labels", n_classes=np.iinfo(np.int64).max)
    return int(labels.max(initial=-1)) + 1


def _no_text(features: ArrayLike | None, n_classes: int) -> NDArray[np.float64]:
    """Zeros `(n, C)` in the memory of one, instead of logits."""
    if features is None:
        raise InputError(_NEITHER)
    return np.broadcast_to(0.0, (len(as_matrix(features, "features")), n_classes))


def _given(
    labels: ArrayLike | None, confidence: ArrayLike | None, n: int, n_classes: int
) -> dict[str, Any]:
    """Check labels from elsewhere, and the probabilities that came with them."""
    if labels is None:
        if confidence is not None:
            raise InputError("Expected `given_labels` with `label_confidence`, but got none.")
        return {"given_labels": None, "label_confidence": None}
    given = as_labels(labels, "given_labels", n_classes=n_classes)
    if len(given) != n:
        raise InputError(f"Expected `given_labels` to have {n} entries, but got {len(given)}.")
    if confidence is None:
        return {"given_labels": given, "label_confidence": None}
    p = np.asarray(confidence, dtype=np.float64)
    if p.shape != (n,):
        raise InputError(f"Expected `label_confidence` of shape ({n},), but got {p.shape}.")
    if not ((p >= 0) & (p <= 1) | np.isnan(p)).all():
        raise InputError(
            "Expected `label_confidence` to be probabilities from 0 to 1, or NaN where there are "
            f"none, but they range from {np.nanmin(p):g} to {np.nanmax(p):g}."
        )
    return {"given_labels": given, "label_confidence": p}


EVIDENCE_NAMES = tuple(
    field.name for field in fields(Evidence) if field.name not in ("has_text", "logit_bias")
)


def _bias(value: float | None) -> float | None:
    if value is not None and not np.isfinite(value):
        raise InputError(f"Expected `logit_bias` to be a finite number, but got {value!r}.")
    return None if value is None else float(value)


def labels_and_probabilities(
    logits: Array, given: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return `(n,)` labels, given ones or else the most probable, and their softmax probabilities.

    Examples
    --------
    >>> labels_and_probabilities(np.zeros((1, 2)), np.array([1]))
    (array([1]), array([0.5]))
    """
    if given is None:
        return top_probability(logits)
    return given, np.asarray(pick(softmax(logits), given), dtype=np.float64)


# Images beside the prototypes: cosines that all scores of one batch share.


@dataclass(frozen=True)
class Comparison(ABC):
    """What text and prototypes say about n images of C classes.

    Attributes
    ----------
    logits
        `(n, C)` zero-shot logits, scaled.
    present
        `(C,)` bool, which classes have a prototype.
    given
        `(n,)` labels from elsewhere that are judged; None for the VLM's.
    """

    logits: NDArray[Any]
    present: NDArray[np.bool_]
    given: NDArray[np.int64] | None

    @cached_property
    def judged(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`(n,)` labels that are judged, the VLM's or given ones, and their probabilities."""
        return labels_and_probabilities(self.logits, self.given)

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
        for start in range(0, max(1, len(self.logits)), CACHED_ROWS):
            rows = slice(start, start + CACHED_ROWS)
            given = None if self.given is None else self.given[rows]
            yield Tabulated(self.logits[rows], self.present, given, self.table[rows])


@dataclass(frozen=True)
class _OfVectors(Comparison):
    """Images as rows `(n, d)`, and prototypes `(C, d)` as unit rows of the same precision.

    `lengths` are the `(n,)` lengths of the images' rows; None for unit rows.
    """

    rows: NDArray[Any]
    prototypes: NDArray[Any]
    lengths: NDArray[Any] | None = None

    @cached_property
    def table(self) -> NDArray[Any]:
        cosines: NDArray[Any] = self.rows @ self.prototypes.T
        if self.lengths is not None:
            cosines /= self.lengths[:, None]
        cosines[:, ~self.present] = NO_PROTOTYPE
        return cosines

    def similarity_to(self, classes: NDArray[np.int64]) -> NDArray[np.float64]:
        # Those to the other prototypes, C times the work, may never be asked for.
        cosines = np.einsum("nd,nd->n", self.rows, self.prototypes[classes])
        if self.lengths is not None:
            cosines = cosines / self.lengths
        return np.where(self.present[classes], cosines, NO_PROTOTYPE).astype(np.float64, copy=False)


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


def compare(evidence: Evidence, bank: PrototypeBank | None = None) -> Comparison:
    """Compare images with the prototypes of the evidence's own bank, or of another one.

    Raises
    ------
    EvidenceMissingError
        If there is no bank, or there are no features.

    Examples
    --------
    >>> images = Evidence.of(logits=[[0.0, 0.0]], features=[[2.0, 0.0]],
    ...                      support_features=[[1.0, 0.0]], support_labels=[1])
    >>> compare(images).similarities, compare(images).present
    (array([[-1.,  1.]]), array([False,  True]))
    """
    bank = bank or evidence.bank
    if bank is None:
        raise EvidenceMissingError("Expected evidence with `bank`, but it has none.")
    prototypes = bank.prototypes_
    # A bank that has been given more shots since has other prototypes.
    return evidence.once(
        "comparison",
        lambda: _OfVectors(
            evidence.logits, bank.present_, evidence.given_labels, evidence.directions, prototypes
        ),
        of=prototypes,
    )


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
        np.where(comparison.present, comparison.table, np.nan)
        for comparison in map(compare, evidence.blocks())
    ]
    return np.concatenate([np.empty((0, evidence.logits.shape[1])), *tables])


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
    if features is None or bank is None:
        raise EvidenceMissingError("Expected evidence with `features` and `bank`.")
    comparison = _OfVectors(
        evidence.logits, bank.present_, evidence.given_labels, features, prototypes, lengths
    )
    evidence.once("comparison", lambda: comparison, of=bank.prototypes_)
    return evidence


# Feature spaces that images are compared in.

FeatureSpace = Literal["features", "image_embeddings"]
# The vision encoder's space first; the VLM's own image space where its vectors are at hand.
FEATURE_SPACES: tuple[FeatureSpace, ...] = ("features", "image_embeddings")


def images_in(space: FeatureSpace, evidence: Evidence) -> NDArray[np.float64]:
    """Return the images of the evidence as unit rows `(n, d)` of a space."""
    return unit_rows(evidence.piece(space))


def shots_in(space: FeatureSpace, evidence: Evidence) -> NDArray[np.float64]:
    """Return the shots of the evidence as unit rows `(m, d)` of a space."""
    return unit_rows(evidence.piece(f"support_{space}"))
