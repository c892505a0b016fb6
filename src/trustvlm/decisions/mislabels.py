"""Shots whose label looks wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions.shot_posterior import ShotPosterior
from trustvlm.exceptions import InputError

__all__ = ["SuspectLabel", "suspect_labels"]


@dataclass(frozen=True)
class SuspectLabel:
    """A shot that seems to show another class than its label says.

    Attributes
    ----------
    shot
        Its index.
    label, looks_like
        The class it was given, and the class it resembles most of the others.
    probability
        That the label is wrong, in [0, 1].
    """

    shot: int
    label: int
    looks_like: int
    probability: float


def suspect_labels(posterior: ShotPosterior, *, false_share: float = 0.2) -> list[SuspectLabel]:
    """List the shots whose label looks wrong, surest first.

    The list holds every label that is more likely wrong than right, and goes on as long as the
    expected share of right labels in it stays within `false_share`: the mean of one minus the
    probabilities is the estimated false discovery rate.

    Parameters
    ----------
    posterior
        Of the shots, from `shot_posterior`.
    false_share
        Share of the listed shots that may be expected to be right after all, in [0, 1).

    Raises
    ------
    InputError
        If `false_share` is outside [0, 1).

    Notes
    -----
    Sun & Cai 2007, "Oracle and adaptive compound decision rules for false discovery rate
    control": rank by the local false discovery rate and accept while its mean is at most the
    level. It rests on the noise model; labels mixed up between look-alikes are harder to see.

    Examples
    --------
    >>> from trustvlm.decisions.shot_posterior import shot_posterior
    >>> x = np.repeat(np.eye(2), 6, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(12, 2))
    >>> y = np.repeat([0, 1], 6)
    >>> y[2] = 1  # planted
    >>> [(s.shot, s.label, s.looks_like) for s in suspect_labels(shot_posterior(x, y, n_classes=2))]
    [(2, 1, 0)]
    """
    if not 0 <= false_share < 1:
        raise InputError(f"Expected `false_share` to lie in [0, 1), but got {false_share}.")
    order = np.argsort(-posterior.mislabelled, kind="stable")
    doubts = 1.0 - posterior.mislabelled[order]
    means = np.cumsum(doubts) / np.arange(1, len(order) + 1)
    # Doubts and their means rise from first to last.
    listed = order[: int(((means <= false_share) | (doubts < 0.5)).sum())]
    others = _second_choice(posterior)
    return [
        SuspectLabel(
            shot=int(posterior.kept[i]),
            label=int(posterior.labels[i]),
            looks_like=int(others[i]),
            probability=float(posterior.mislabelled[i]),
        )
        for i in listed
    ]


def _second_choice(posterior: ShotPosterior) -> NDArray[np.int64]:
    """Most probable class that is not the label."""
    table = posterior.log_probability.copy()
    np.put_along_axis(table, posterior.labels[:, None], -np.inf, axis=1)
    chosen: NDArray[np.int64] = table.argmax(axis=1)
    return chosen
