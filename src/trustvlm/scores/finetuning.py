"""TrustVLM*(F): prototypes that go on learning from the shots they were made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.arrays import as_labels, as_matrix, log_softmax, unit_rows
from trustvlm.scores.compute import ScoreResult, register
from trustvlm.scores.evidence import Evidence, compare
from trustvlm.scores.prototype_scores import prototype_softmax, voted
from trustvlm.scores.prototypes import PrototypeBank


@dataclass(frozen=True)
class Recipe:
    """How prototypes are fine-tuned: AdamW, cosine decay, a fixed number of epochs.

    The paper (arXiv 2505.23745) names the variant and not its details; these are our choice.

    Attributes
    ----------
    temperature
        T of the softmax whose cross-entropy is lowered.
    epochs, learning_rate, batch_size
        Of the optimisation.
    seed
        Of the order of shots within an epoch.
    """

    temperature: float = 0.01
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 256
    seed: int = 0

    # AdamW's constants: decay rates of the moments, what keeps the division finite, weight decay.
    betas = (0.9, 0.999)
    eps = 1e-4
    weight_decay = 0.01

    def __post_init__(self) -> None:
        if not (
            self.temperature > 0
            and self.epochs >= 1
            and self.learning_rate > 0
            and self.batch_size >= 1
        ):
            raise InputError(
                "Expected `temperature`, `epochs`, `learning_rate` and `batch_size` to be "
                f"positive, but got {self.temperature}, {self.epochs}, {self.learning_rate} and "
                f"{self.batch_size}."
            )

    def steps(self, m: int) -> Iterator[tuple[int, float, NDArray[np.int64]]]:
        """Yield epoch, learning rate and the batch's shots for each step over m shots.

        Examples
        --------
        >>> [(epoch, rate) for epoch, rate, _ in Recipe(epochs=2, learning_rate=1.0).steps(3)]
        [(0, 1.0), (1, 0.5)]
        """
        rng = np.random.default_rng(self.seed)
        per_epoch = -(-m // self.batch_size)
        for epoch in range(self.epochs):
            order = rng.permutation(m)
            for i in range(per_epoch):
                progress = (epoch * per_epoch + i) / (self.epochs * per_epoch)
                rate = self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
                yield epoch, rate, order[i * self.batch_size : (i + 1) * self.batch_size]


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning gave.

    Attributes
    ----------
    bank
        The bank with the learned prototypes; its shots and counts are those of the original.
    losses
        `(epochs,)` mean cross-entropy on the shots, in nats, one per epoch, each batch before its
        step; empty without shots.
    """

    bank: PrototypeBank
    losses: NDArray[np.float64]


def checked_shots(
    bank: PrototypeBank, features: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the shots as `(m, d)` unit rows, and their places among the bank's present classes.

    Raises
    ------
    InputError
        For arrays that do not fit, or shots of other classes or another encoder than the bank's.
    """
    shots = unit_rows(as_matrix(features, "features", nonzero=True))
    index = as_labels(labels, "labels", n_classes=bank.n_classes, n=len(shots))
    if not bank.present_[index].all() or shots.shape[1] != bank.dim:
        raise InputError("Expected the shots that the bank was fitted on, but got others.")
    return shots, (np.cumsum(bank.present_) - 1)[index]


def finetune_prototypes(
    bank: PrototypeBank, features: ArrayLike, labels: ArrayLike, recipe: Recipe | None = None
) -> FineTuned:
    """Fine-tune prototypes, and nothing else, on the shots.

    They start at the bank's, and lower the cross-entropy of softmax(S / T), S the cosines of the
    shots with all prototypes. No epoch is chosen by any result. Classes without shots stay as they
    are: absent. The same seed gives the same prototypes.

    Parameters
    ----------
    bank
        Prototypes fitted on the same shots.
    features, labels
        `(m, d)` un-normalised features and `(m,)` class indices of the shots.
    recipe
        Settings; the defaults where it is None.

    Raises
    ------
    InputError
        As `checked_shots`.

    Notes
    -----
    Loshchilov & Hutter 2019 (arXiv 1711.05101), algorithm 2. Time is O(epochs m C d).

    Examples
    --------
    >>> features, labels = np.array([[1.0, 0.8], [0.8, 1.0]]), np.array([0, 1])
    >>> bank = PrototypeBank().fit(features, labels)
    >>> losses = finetune_prototypes(bank, features, labels, Recipe(temperature=0.1)).losses
    >>> bool(losses[-1] < losses[0])
    True
    """
    recipe = recipe or Recipe()
    shots, index = checked_shots(bank, features, labels)
    present = bank.present_
    weights = bank.prototypes_[present].copy()
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    beta1, beta2 = recipe.betas
    losses = np.zeros(recipe.epochs if len(shots) else 0)
    for step, (epoch, rate, batch) in enumerate(recipe.steps(len(shots)), start=1):
        loss, gradient = _cross_entropy(weights, shots[batch], index[batch], recipe.temperature)
        losses[epoch] += loss * len(batch) / len(shots)
        mean += (1 - beta1) * (gradient - mean)
        square += (1 - beta2) * (gradient**2 - square)
        scale = np.sqrt(square) / math.sqrt(1 - beta2**step) + recipe.eps
        weights *= 1 - rate * recipe.weight_decay
        weights -= rate / (1 - beta1**step) * mean / scale
    learned = np.zeros_like(bank.prototypes_)
    learned[present] = weights
    return FineTuned(bank.with_prototypes(learned), losses)


def _cross_entropy(
    weights: NDArray[np.float64],
    shots: NDArray[np.float64],
    labels: NDArray[np.int64],
    temperature: float,
) -> tuple[float, NDArray[np.float64]]:
    """Mean cross-entropy of unit shots against normalised weights, and its gradient in them."""
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    prototypes = weights / norms
    log_p = log_softmax(shots @ prototypes.T / temperature)
    rows = np.arange(len(shots))
    loss = -float(log_p[rows, labels].mean())
    slope = np.exp(log_p)
    slope[rows, labels] -= 1
    towards = slope.T @ shots / (temperature * len(shots))
    # Only what is at right angles to a prototype turns it.
    radial = (towards * prototypes).sum(axis=1, keepdims=True)
    return loss, (towards - radial * prototypes) / norms


def _finetuned(
    evidence: Evidence,
    *,
    temperature: float = 0.01,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    seed: int = 0,
) -> PrototypeBank:
    features, labels = evidence.piece("support_features"), evidence.piece("support_labels")
    # The evidence's own bank may have been fine-tuned already: this starts at the means.
    bank = PrototypeBank().fit(features, labels, n_classes=evidence.n_classes)
    recipe = Recipe(temperature, epochs, learning_rate, batch_size, seed)
    return finetune_prototypes(bank, features, labels, recipe).bank


@register(
    "trustvlm_star_f",
    needs=("logits", "features", "support_features", "support_labels"),
    formula="as trustvlm_star, with P fine-tuned on the shots: min over P of -log softmax(S/T)_y",
    source="Dong et al. 2025 (arXiv 2505.23745) name it; the details are ours",
    complexity="O(nCd), once O(epochs m C d), m shots",
    corrects=True,
    fit=_finetuned,
)
def trustvlm_star_f(
    evidence: Evidence, bank: PrototypeBank, *, weight: float = 1.0, temperature: float = 0.01
) -> ScoreResult:
    """TrustVLM*(F): TrustVLM* with prototypes that went on learning from their shots.

    `temperature` is that of the fine-tuning as well. `epochs`, `learning_rate`, `batch_size` and
    `seed` are AdamW's. `weight` = 0 gives MSP's predictions and confidences. Classes without shots
    get no vote from the examples and no image term.
    """
    comparison = compare(evidence, bank)
    votes = prototype_softmax(comparison.similarities, comparison.present, temperature)
    return voted(comparison, votes, weight=weight)
