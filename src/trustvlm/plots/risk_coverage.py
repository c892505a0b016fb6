"""Figures of one evaluation: risk-coverage curves, confidence histogram, reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics
from trustvlm.exceptions import InputError
from trustvlm.plots.figure import INK, MUTED, RIGHT, SERIES, WRONG, Figure
from trustvlm.plots.panels import Curve, Panel, small_multiples

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

WIDTH, HEIGHT = 420, 300


def risk_coverage_panel(
    title: str,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ideal: tuple[ArrayLike, ArrayLike] | None = None,
    oracle: str = "oracle",
    decided: tuple[float, float] | None = None,
) -> Panel:
    """Make one panel of risk-coverage curves, in percent; see `risk_coverage_figure`.

    `oracle` is what the legend calls the ideal curve.
    """
    shown = {}
    for score, curve in curves.items():
        x, (y, *band) = _percent(score, *curve, *(bands or {}).get(score, ()))
        shown[score] = Curve(x, y, *band)
    # The first few images make the curve jump: one error at the top is a risk of 100 %. The axis
    # is scaled to what holds from a tenth of the images on, and earlier spikes leave the frame.
    highest = 1.15 * max(float(c.y[c.x >= 10].max(initial=0.0)) for c in shown.values())
    top = min(100.0, highest) if highest > 0 else 1.0
    if ideal is not None:
        line = {"color": MUTED, "linestyle": ":", "linewidth": 1.2, "zorder": 2}
        x, (y,) = _percent("ideal", *ideal)
        shown[oracle] = Curve(x, y, style=line)
    if decided is not None:
        ring = {"color": INK, "linestyle": "", "marker": "o", "markersize": 9, "zorder": 5}
        ring |= {"markerfacecolor": "none", "markeredgewidth": 1.8, "clip_on": False}
        share, risk = decided
        shown["decisions"] = Curve(np.array([100 * share]), np.array([100 * risk]), style=ring)
        top = max(top, 115 * risk)
    return Panel(title, shown, ends=(100, top))


def risk_coverage_figure(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    highlight: str = "",
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ideal: tuple[ArrayLike, ArrayLike] | None = None,
    decided: tuple[float, float] | None = None,
    aurc: Mapping[str, float] | None = None,
    name: str = "risk-coverage",
) -> Figure:
    """Draw risk-coverage curves: the share wrong among the accepted against the share accepted.

    Parameters
    ----------
    curves
        For each score, in the order of the legend, coverage and risk `(k,)` as fractions in
        [0, 1], coverage ascending. At most 8 scores.
    highlight
        The score that is drawn boldest and on top; "" for none.
    bands
        For some of the scores, the lowest and highest plausible risk `(k,)` at the coverages of
        the curve, drawn as a pale band behind it.
    ideal
        Coverage and risk of the oracle, which puts every right label before every wrong one, drawn
        as a thin dotted line.
    decided
        Share of the images that were in fact accepted, and share wrong among these: a ring.
    aurc
        Areas under some of the curves, as fractions, for the legend.
    name
        Of the figure, unique within a page.

    Raises
    ------
    InputError
        If there are no curves, too many, or an empty one; if a band does not fit its curve.

    Examples
    --------
    >>> risk_coverage_figure({"msp": ([0.5, 1.0], [0.0, 0.5])}).svg()[:4]
    '<svg'
    """
    if not 1 <= len(curves) <= len(SERIES):
        raise InputError(f"Expected 1 to {len(SERIES)} `curves`, but got {len(curves)}.")
    areas = aurc or {}
    drawn = small_multiples(
        [risk_coverage_panel("", curves, bands=bands, ideal=ideal, decided=decided)],
        name=name,
        title="Risk-coverage curves",
        caption="Share of wrong labels among the accepted images against the share of images "
        f"accepted, for {', '.join(curves)}. Lower is better.{' AURC ×1000.' if areas else ''}",
        x_label="accepted images, most trusted first (%)",
        y_label="wrong among the accepted (%)",
        highlight=highlight,
    )
    labels = (
        f"{label}: AURC {1000 * areas[label]:.0f}" if label in areas else label
        for label in drawn.labels
    )
    return replace(drawn, labels=tuple(labels))


def confidence_histogram(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    score: str = "confidence",
    name: str = "confidence-histogram",
    bins: int = 32,
    threshold: float | None = None,
) -> Figure:
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
        Of the figure, unique within a page.
    bins
        Number of bins of equal width between the smallest and the largest confidence.
    threshold
        From which confidence on labels are accepted: a vertical line; None draws none.

    Raises
    ------
    InputError
        If the arrays are empty or differ in length.

    Examples
    --------
    >>> confidence_histogram([0.2, 0.9], [False, True]).labels
    ('right (1), upwards', 'wrong (1), downwards')
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

    def draw(body: FigureBase) -> Sequence[Any]:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        axes = body.subplots()
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.margins(x=0.02)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):.0f}"))
        axes.set_xlabel(f"confidence ({score})")
        axes.set_ylabel("images")
        drawn: list[Any] = [
            axes.stairs(above, edges, fill=True, color=RIGHT),
            axes.stairs(-below, edges, fill=True, color=WRONG),
        ]
        if threshold is not None:
            drawn.append(axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.4))
        return drawn

    return Figure(
        name,
        "Confidence of right and wrong predictions",
        f"Histogram of the confidence of {above.sum()} right predictions, drawn upwards, and "
        f"{below.sum()} wrong ones, drawn downwards.",
        WIDTH,
        HEIGHT,
        draw,
        labels=(
            f"right ({above.sum()}), upwards",
            f"wrong ({below.sum()}), downwards",
            *(() if threshold is None else ("threshold",)),
        ),
    )


def reliability_diagram(
    probability: ArrayLike, correct: ArrayLike, *, bins: int = 15, name: str = "reliability"
) -> Figure:
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
        Of the figure, unique within a page.

    Raises
    ------
    InputError
        If the arrays are empty or do not fit.

    Examples
    --------
    >>> "right labels" in reliability_diagram([0.2, 0.9], [False, True]).svg()
    True
    """
    groups = metrics.reliability(probability, correct, bins)
    if not groups.images.size:
        raise InputError("Expected at least one image to draw, but got none.")

    def draw(body: FigureBase) -> Sequence[Any]:
        axes = body.subplots()
        (diagonal,) = axes.plot([0, 100], [0, 100], color=MUTED, linestyle="--", linewidth=1.2)
        x, y = 100 * groups.probability, 100 * groups.right
        half = 196 * groups.spread
        low, high = np.maximum(x - half, 0), np.minimum(x + half, 100)
        axes.vlines(x, low, high, color=MUTED, linewidth=1.2, zorder=2)
        (points,) = axes.plot(x, y, color=SERIES[0], linewidth=1.4, zorder=3)
        # An area of paper for every image; the largest group is about 9 pixels wide.
        area = 8 + 56 * groups.images / groups.images.max()
        axes.scatter(x, y, s=area, color=SERIES[0], zorder=3)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("P(correct), mean of a group (%)")
        axes.set_ylabel("right labels in the group (%)")
        return [points, diagonal]

    return Figure(
        name,
        "Reliability of P(correct)",
        "Share of right labels against the probability of being right, in "
        f"{len(groups.images)} groups of images. On the diagonal the two are equal.",
        WIDTH,
        HEIGHT,
        draw,
        labels=("as found", "as said"),
    )


def _percent(
    score: str, coverage: ArrayLike, *risks: ArrayLike
) -> tuple[NDArray[np.float64], list[Any]]:
    """Check and scale coverage, risk and the two ends of a band, if there is one."""
    x, *ys = (100 * np.asarray(values, dtype=np.float64) for values in (coverage, *risks))
    if x.ndim != 1 or not len(x) or any(y.shape != x.shape for y in ys):
        raise InputError(
            f"Expected coverage and risk of `{score}` to be of one shape `(k,)` with k >= 1, "
            f"but got {x.shape} and {' and '.join(str(y.shape) for y in ys)}."
        )
    return x, ys
