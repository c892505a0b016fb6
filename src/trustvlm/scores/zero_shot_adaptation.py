"""Published ways to adapt zero-shot predictions to an unlabelled batch: Conf-OT, LATA, StatA.

They see no shots. Each makes new class probabilities of the whole batch's; the label is the most
probable class, the confidence its probability. A verdict depends on the other images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import log_softmax, row_blocks, softmax, top_probability, unit_rows
from trustvlm.scores.compute import ScoreResult, joined, register
from trustvlm.scores.evidence import Evidence, images_in
from trustvlm.scores.neighbours import nearest_columns

Array = NDArray[np.float64]
# Logits `(rows, C)` of some of the images.
_Logits = Callable[[slice], Array]

# So many neighbours of each image are looked for at once, for all scores that ask for less.
_NEIGHBOURS = 15

_register = partial(register, corrects=True, whole_batch=True)


@_register(
    "conf_ot",
    formula="max q, q = exp(z / e - u_c - v_x), u and v by Sinkhorn: classes of equal mass",
    source="Silva-Rodriguez et al. 2025 (arXiv 2505.24693)",
    complexity="O(nCt), t rounds",
)
def conf_ot(evidence: Evidence, *, epsilon: float = 1.0, rounds: int = 3) -> ScoreResult:
    """Conf-OT: maximum of the zero-shot probabilities after optimal transport to equal classes.

    Rounds of Sinkhorn's algorithm take from each class what all images give it too much of; of
    unequal classes that is wrong. The original takes the proportions from labelled calibration
    images where it has them, and else equal ones, as here. A single image, which alone would
    belong to every class alike, keeps its probabilities.
    """
    if not (epsilon > 0 and rounds >= 1):
        raise InputError(
            "Expected `epsilon` above 0 and `rounds` of at least 1, "
            f"but got {epsilon} and {rounds}."
        )
    potentials = np.zeros(evidence.n_classes)

    def logits(rows: slice) -> Array:
        return np.asarray(evidence.logits[rows].astype(np.float64) / epsilon - potentials)

    for turn in range(rounds if evidence.n > 1 else 0):
        # log-sum-exp over all images, block by block
        total = np.full(evidence.n_classes, -np.inf)
        for rows in row_blocks(evidence.n, 4 * evidence.n_classes):
            # Images have equal mass from the first division by them on.
            table = log_softmax(logits(rows)) if turn else logits(rows)
            total = np.logaddexp(total, np.logaddexp.reduce(table, axis=0))
        potentials = potentials + total
    return _most_probable(logits, evidence)


@_register(
    "lata",
    needs=("logits", "image_embeddings"),
    formula="max q, q_i ~ p_i exp(g sum_j w_ij q_j), w_ij = exp(-|v_i - v_j|^2 / s^2) of mutual "
    "neighbours",
    source="Bozorgtabar et al. 2026 (arXiv 2602.17535), label-free",
    complexity="O(n^2 e + nCkt), k neighbours, t rounds",
)
def lata(
    evidence: Evidence, *, neighbours: int = _NEIGHBOURS, smoothing: float = 0.35, rounds: int = 8
) -> ScoreResult:
    """LATA: maximum of the zero-shot probabilities after smoothing over the graph of images.

    Edges join images that are among each other's nearest in the VLM's own image space; s is the
    median distance to the neighbours. The original slides a window of 256 images and adds a
    trained failure predictor to conformal scores; here the batch is the window, and there is no
    predictor. Images without mutual neighbours keep their probabilities, a single one too.
    """
    _check_graph(neighbours, rounds)
    if evidence.n < 2:
        return _most_probable(lambda rows: evidence.logits[rows].astype(np.float64), evidence)
    nearest = _graph_of(evidence, neighbours)
    squares = np.maximum(2.0 - 2.0 * nearest.data, 0.0)
    scale = float(np.median(np.sqrt(squares))) or 1.0
    weights = scipy.sparse.csr_array(
        (np.exp(-squares / scale**2), nearest.indices, nearest.indptr), shape=nearest.shape
    )
    # Both ends know an edge only if it is mutual; then their weights agree.
    mutual = weights.minimum(weights.T).tocsr()
    smoothed: Array = softmax(evidence.logits)

    def logits(rows: slice) -> Array:
        z = evidence.logits[rows].astype(np.float64)
        return np.asarray(z + smoothing * (mutual[rows] @ smoothed))

    for _ in range(rounds - 1):
        smoothed = _softmax_of(logits, evidence)
    return _most_probable(logits, evidence)


# Of StatA's released code: what logarithms of densities are divided by, and how often the images'
# probabilities are updated under the same Gaussians.
_FLATNESS, _INNER_ROUNDS = 50.0, 5


@_register(
    "stata",
    needs=("logits", "image_embeddings", "text_embeddings"),
    formula="max q, q_i ~ p_i exp(log N(v_i; mu_c, S_c) / 50 + sum_j (w_ij + w_ji) q_j / 2k), "
    "mu, S of the batch, anchored at the texts",
    source="Zanella et al. 2025 (arXiv 2501.03729)",
    complexity="O(n^2 e + nCet), t rounds",
)
def stata(
    evidence: Evidence, *, anchor: float = 1.0, neighbours: int = 3, rounds: int = 10
) -> ScoreResult:
    """StatA: maximum of the probabilities under Gaussians of the batch, anchored at the texts.

    Each class has a mean and variances of the batch's own images in the VLM's space, drawn towards
    the class's text the fewer images the class has; `anchor` is the number at which both count
    the same. As in the released code, the determinant is left out of log N. Made for batches in
    which few of the classes occur.
    """
    _check_graph(neighbours, rounds)
    if not anchor > 0:
        raise InputError(f"Expected `anchor` to be above 0, but got {anchor}.")
    images, texts = (
        images_in("image_embeddings", evidence),
        unit_rows(evidence.piece("text_embeddings")),
    )
    n, n_classes = evidence.logits.shape
    graph = _graph_of(evidence, neighbours)
    graph = ((graph + graph.T) / (2.0 * neighbours)).tocsr()
    posterior: Array = softmax(evidence.logits)
    # Variances of each dimension around the texts, of all classes together.
    masses = posterior.sum(axis=0)
    variances = (images**2).sum(axis=0) - 2.0 * ((posterior.T @ images) * texts).sum(axis=0)
    variances = np.maximum(variances + masses @ texts**2, 0.0) / max(n, 1)
    means, spreads = texts, np.repeat(variances[None], n_classes, axis=0)

    def logits(rows: slice) -> Array:
        z = evidence.logits[rows].astype(np.float64)
        return np.asarray(z + densities[rows] / _FLATNESS + graph[rows] @ posterior)

    for turn in range(rounds + 1):
        densities = _log_densities(images, means, spreads)
        # The last update of all is that of the result.
        for _ in range(_INNER_ROUNDS - (turn == rounds)):
            posterior = _softmax_of(logits, evidence)
        if turn == rounds:
            break
        counts = np.bincount(posterior.argmax(axis=1), minlength=n_classes)
        believed = (counts / (anchor + counts))[:, None]
        masses = np.maximum(posterior.sum(axis=0), 1e-300)[:, None]
        averages = (posterior.T @ images) / masses
        means = unit_rows(believed * unit_rows(averages) + (1.0 - believed) * texts)
        around = (posterior.T @ images**2) / masses - 2.0 * averages * means + means**2
        spreads = believed * np.maximum(around, 0.0)
        spreads += (1.0 - believed) * (variances + (texts - means) ** 2)
    return _most_probable(logits, evidence)


def _log_densities(images: Array, means: Array, spreads: Array) -> Array:
    """-(x - mu)' S^-1 (x - mu) / 2 for each image and class, `(n, C)`."""
    # A dimension in which nothing varies says nothing.
    precisions = 1.0 / np.maximum(spreads, 1e-12)
    table = np.empty((len(images), len(means)))
    constants = (precisions * means**2).sum(axis=1)
    for rows in row_blocks(len(images), 4 * sum(means.shape)):
        x = images[rows]
        table[rows] = x @ (precisions * means).T - 0.5 * ((x**2) @ precisions.T + constants)
    return table


def _graph_of(evidence: Evidence, k: int) -> scipy.sparse.csr_array:
    """Cosines of each image to its k nearest others in the VLM's space, as a sparse `(n, n)`."""
    n, k = evidence.n, min(k, evidence.n - 1)
    if n < 2:
        return scipy.sparse.csr_array((n, n))
    most = min(max(k, _NEIGHBOURS), n - 1)
    cosines, columns = evidence.once(
        f"{most} nearest others",
        lambda: _nearest_others(images_in("image_embeddings", evidence), most),
    )
    ends = np.arange(0, n * k + 1, k)
    return scipy.sparse.csr_array(
        (cosines[:, :k].ravel(), columns[:, :k].ravel(), ends), shape=(n, n)
    )


def _nearest_others(rows: Array, k: int) -> tuple[Array, NDArray[np.int64]]:
    n = len(rows)
    columns, cosines = np.empty((n, k), dtype=np.int64), np.empty((n, k))
    for block in row_blocks(n, 4 * n):
        table = rows[block] @ rows.T
        table[np.arange(len(table)), np.arange(block.start, block.stop)] = -np.inf
        cosines[block], columns[block] = nearest_columns(table, k)
    return cosines, columns


def _check_graph(neighbours: int, rounds: int) -> None:
    if not (neighbours >= 1 and rounds >= 1):
        raise InputError(
            f"Expected `neighbours` and `rounds` of at least 1, but got {neighbours} and {rounds}."
        )


# Tables of all images and classes, made block by block, so that few are there at once.


def _blocks(evidence: Evidence) -> list[slice]:
    # Something must be joined where there are no images.
    return list(row_blocks(evidence.n, 6 * evidence.n_classes)) or [slice(0, 0)]


def _softmax_of(logits: _Logits, evidence: Evidence) -> Array:
    table = np.empty(evidence.logits.shape)
    for rows in _blocks(evidence):
        table[rows] = softmax(logits(rows))
    return table


def _most_probable(logits: _Logits, evidence: Evidence) -> ScoreResult:
    return joined([ScoreResult(*top_probability(logits(rows))) for rows in _blocks(evidence)])
