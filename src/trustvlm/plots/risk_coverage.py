"""Risk-coverage curves, confidence histograms and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.plots import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Figures as SVG text that follows the page's colours: light, dark or print.
#
# The SVG is made by Matplotlib with text left as text. Every colour becomes `currentColor` or a CSS
# variable with a fallback, so the same figure can be put inline into a page with any theme or stand
# alone in a file. Same input, same bytes.

WIDTH, HEIGHT, _LEGEND_ROW = 420, 300, 20
_MAX_POINTS = 400
_MAX_CURVES = len(svg.SERIES)
# Two bands on each other stay paler than any line, and text on both readable.
_BAND = 0.16
_DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))


def risk_coverage_svg(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    highlight: str = "",
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ideal: tuple[ArrayLike, ArrayLike] | None = None,
    decided: tuple[float, float] | None = None,
    name: str = "risk-coverage",
) -> str:
    """Draw risk-coverage curves: the share wrong among the accepted against the share accepted.

    Parameters
    ----------
    curves
        For each score, in the order of the legend, coverage and risk `(k,)` as fractions in
        [0, 1], coverage ascending. At most 8 scores; long curves are thinned for drawing.
    highlight
        The score that is drawn boldest and on top; "" for none.
    bands
        For some of the scores, the lowest and highest plausible risk `(k,)` at the coverages of
        the curve, drawn as a pale band behind it.
    ideal
        Coverage and risk of a perfect order, drawn as a thin dotted line.
    decided
        Share of the images that were in fact accepted, and share wrong among these: a ring.
    name
        Identifier in the SVG, unique within a page.

    Returns
    -------
    str
        An `<svg>` element with a title and a description for screen readers.

    Raises
    ------
    InputError
        If there are no curves, too many, or an empty one; if a band does not fit its curve.

    Examples
    --------
    >>> drawing = risk_coverage_svg({"msp": ([0.5, 1.0], [0.0, 0.5])})
    >>> drawing[:4], "currentColor" in drawing
    ('<svg', True)
    """
    if not 1 <= len(curves) <= _MAX_CURVES:
        raise InputError(f"Expected 1 to {_MAX_CURVES} `curves`, but got {len(curves)}.")
    points = {score: _points(score, *curve) for score, curve in curves.items()}
    with svg.canvas(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot()
        for rank, (score, (coverage, risk)) in enumerate(points.items()):
            own = score == highlight
            axes.plot(
                100 * coverage,
                100 * risk,
                color=svg.SERIES[rank],
                linestyle="-" if own else _DASHES[rank % len(_DASHES)],
                linewidth=2.8 if own else 1.5,
                zorder=4 if own else 3,
            )
            if bands and score in bands:
                low, high = (_points(score, curves[score][0], end)[1] for end in bands[score])
                axes.fill_between(
                    100 * coverage,
                    100 * low,
                    100 * high,
                    color=svg.SERIES[rank],
                    alpha=_BAND,
                    linewidth=0,
                    zorder=1,
                )
        labels = list(points)
        if ideal is not None:
            coverage, risk = _points("ideal", *ideal)
            axes.plot(
                100 * coverage, 100 * risk, color=svg.MUTED, linestyle=":", linewidth=1.2, zorder=2
            )
            labels.append("perfect order")
        if decided is not None:
            axes.plot(
                *([100 * share] for share in decided),
                color=svg.INK,
                linestyle="",
                marker="o",
                markersize=9,
                markerfacecolor="none",
                markeredgewidth=1.8,
                zorder=5,
                clip_on=False,
            )
            labels.append("decisions")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, max(_ceiling(points), 115 * decided[1] if decided else 0))
        axes.set_xlabel("accepted images, most trusted first (%)")
        axes.set_ylabel("wrong among the accepted (%)")
        place_legend(figure, axes.get_lines(), labels)
        return svg.element(
            figure,
            name=name,
            title="Risk-coverage curves",
            description="Share of wrong labels among the accepted images against the share of "
            f"images accepted, for {', '.join(points)}. Lower is better.",
        )


def confidence_histogram_svg(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    score: str = "confidence",
    name: str = "confidence-histogram",
    bins: int = 32,
) -> str:
    """Draw how the confidence is spread: right predictions upwards, wrong ones downwards.

    Parameters
    ----------
    confidence
        `(n,)` finite, n >= 1.
    correct
        `(n,)` bool or 0/1.
    score
        Name of the score, for the axis.
    name
        Identifier in the SVG, unique within a page.
    bins
        Number of bins of equal width between the smallest and the largest confidence.

    Returns
    -------
    str
        An `<svg>` element with a title and a description for screen readers.

    Raises
    ------
    InputError
        If the arrays are empty or differ in length.

    Examples
    --------
    >>> "wrong (1), downwards" in confidence_histogram_svg([0.2, 0.9], [False, True])
    True
    """
    values = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=bool)
    if values.ndim != 1 or values.shape != right.shape or not len(values):
        raise InputError(
            "Expected `confidence` and `correct` of one shape `(n,)` with n >= 1, "
            f"but got {values.shape} and {right.shape}."
        )
    edges = np.histogram_bin_edges(values, bins=bins)
    above = np.histogram(values[right], bins=edges)[0]
    below = np.histogram(values[~right], bins=edges)[0]
    with svg.canvas(WIDTH, HEIGHT) as figure:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        axes = figure.add_subplot()
        patches = [
            axes.stairs(above, edges, fill=True, color=svg.RIGHT),
            axes.stairs(-below, edges, fill=True, color=svg.WRONG),
        ]
        axes.axhline(0, color=svg.INK, linewidth=0.8)
        axes.margins(x=0.02)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):.0f}"))
        axes.set_xlabel(f"confidence ({score})")
        axes.set_ylabel("images")
        labels = [f"right ({above.sum()}), upwards", f"wrong ({below.sum()}), downwards"]
        place_legend(figure, patches, labels)
        return svg.element(
            figure,
            name=name,
            title="Confidence of right and wrong predictions",
            description=f"Histogram of the confidence of {above.sum()} right predictions, drawn "
            f"upwards, and {below.sum()} wrong ones, drawn downwards.",
        )


def _points(
    score: str, coverage: ArrayLike, risk: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(coverage, dtype=np.float64), np.asarray(risk, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise InputError(
            f"Expected coverage and risk of `{score}` to be of one shape `(k,)` with k >= 1, "
            f"but got {x.shape} and {y.shape}."
        )
    if len(x) <= _MAX_POINTS:
        return x, y
    # Evenly in coverage, which is evenly on paper; both ends are kept.
    wanted = np.linspace(x[0], x[-1], _MAX_POINTS)
    kept = np.unique(np.clip(np.searchsorted(x, wanted), 0, len(x) - 1))
    return x[kept], y[kept]


def _ceiling(points: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    # The first few images make the curve jump: one error at the top is a risk of 100 %. The axis
    # is scaled to what holds from a tenth of the images on, and earlier spikes leave the frame.
    highest = max(
        float(risk[coverage >= 0.1].max(initial=0.0)) for coverage, risk in points.values()
    )
    return min(100.0, 115 * highest) if highest > 0 else 1.0


def place_legend(figure: Figure, handles: Any, labels: list[str]) -> None:
    """Put a legend below the axes, and make the figure as much higher as it needs."""
    columns = 3 if max(map(len, labels)) <= 10 else 2
    columns = min(columns, len(labels))
    rows = -(-len(labels) // columns)
    height = HEIGHT + rows * _LEGEND_ROW
    figure.set_size_inches(WIDTH / 72, height / 72)
    figure.subplots_adjust(
        left=56 / WIDTH,
        right=1 - 12 / WIDTH,
        top=1 - 10 / height,
        bottom=(54 + rows * _LEGEND_ROW) / height,
    )
    legend = figure.legend(
        handles,
        [str(rank) for rank in range(len(labels))],
        loc="lower center",
        ncols=columns,
        frameon=False,
        borderaxespad=0,
        handlelength=2.6,
        columnspacing=1.4,
    )
    # Set afterwards: Matplotlib leaves labels out that begin with an underscore.
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


# The reliability diagram: how often labels are right, against how probable that was said to be.


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
