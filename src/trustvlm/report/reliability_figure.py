"""The reliability diagram: how often labels are right, against how probable that was said to be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.report import svg
from trustvlm.report.figures import HEIGHT, WIDTH, place_legend

__all__ = ["reliability_svg"]


def reliability_svg(
    probability: ArrayLike, correct: ArrayLike, *, bins: int = 15, name: str = "reliability"
) -> str:
    """Draw the share right of groups of images against their mean probability of being right.

    Parameters
    ----------
    probability
        `(n,)` in [0, 1], n >= 1.
    correct
        `(n,)` bool or 0/1.
    bins
        Groups of equal number at most.
    name
        Identifier in the SVG, unique within a page.

    Returns
    -------
    str
        An `<svg>` element with a title and a description for screen readers.

    Raises
    ------
    InputError
        If the arrays are empty or do not fit.

    Examples
    --------
    >>> "right labels" in reliability_svg([0.2, 0.9], [False, True])
    True
    """
    found = metrics.reliability(probability, correct, bins)
    if not found.images.size:
        raise InputError("Expected at least one image to draw, but got none.")
    with svg.canvas(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot()
        (diagonal,) = axes.plot([0, 100], [0, 100], color=svg.MUTED, linestyle="--", linewidth=1.2)
        low = np.maximum(found.probability - 1.96 * found.spread, 0)
        high = np.minimum(found.probability + 1.96 * found.spread, 1)
        axes.vlines(
            100 * found.probability, 100 * low, 100 * high, color=svg.MUTED, linewidth=1.2, zorder=2
        )
        (points,) = axes.plot(
            100 * found.probability, 100 * found.right, color=svg.SERIES[0], linewidth=1.4, zorder=3
        )
        axes.scatter(
            100 * found.probability,
            100 * found.right,
            # An area of paper for every image; the largest group is about 9 pixels wide.
            s=8 + 56 * found.images / found.images.max(),
            color=svg.SERIES[0],
            zorder=3,
        )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("P(correct), mean of a group (%)")
        axes.set_ylabel("right labels in the group (%)")
        place_legend(figure, [points, diagonal], ["as found", "as said"])
        return svg.element(
            figure,
            name=name,
            title="Reliability of P(correct)",
            description=f"Share of right labels against the probability of being right, in "
            f"{len(found.images)} groups of images. On the diagonal the two are equal.",
        )
