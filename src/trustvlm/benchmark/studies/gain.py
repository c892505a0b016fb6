"""What TrustVLM* gains in accuracy over TrustVLM, and over the text alone, at equal coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trustvlm.benchmark.basis import basis_words
from trustvlm.benchmark.chapter import Section
from trustvlm.benchmark.draws import spread
from trustvlm.benchmark.equal_coverage import CoverageGain, coverage_gains
from trustvlm.benchmark.material import Material
from trustvlm.benchmark.panels import Curve, Panel, small_multiples
from trustvlm.benchmark.results import Row
from trustvlm.benchmark.studies.measured import prepared
from trustvlm.benchmark.studies.study import Plan, Study
from trustvlm.benchmark.table import Cell, Head, Line, Table, signed

__all__ = ["GAIN"]

COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))
_TABLED = (1.0, 0.9, 0.8, 0.5)
_STAR, _OTHERS = "trustvlm_star", ("trustvlm", "msp")
_RESAMPLES = 2000


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    rows = []
    others = plan.usable(_OTHERS, material)
    for draw in range(plan.draws):
        known = material.support.shots(material.draws[plan.largest, draw])
        computes = prepared(material, [_STAR, *others], known)
        for test in material.tests:
            evidence = test.about(known)
            results = {score: compute(evidence) for score, compute in computes.items()}
            samples = {s: (r.confidence, r.prediction == test.labels) for s, r in results.items()}
            for other in others:
                # Other draws show the spread over shots, which no bootstrap over images does.
                resamples = 1 if draw else _RESAMPLES
                about = {
                    "dataset": test.name,
                    "score": _STAR,
                    "other": other,
                    "shots": plan.largest,
                    "draw": draw,
                    "n": len(test),
                }
                gains = coverage_gains(
                    samples[_STAR], samples[other], COVERAGES, n_resamples=resamples
                )
                rows += [
                    {**about, **_values(found, bounded=not draw), **material.about}
                    for found in gains
                ]
    return rows


def _values(found: CoverageGain, *, bounded: bool) -> dict[str, Any]:
    return {
        "coverage": found.coverage,
        "accuracy": found.accuracy,
        "other_accuracy": found.other_accuracy,
        "gain": found.gain,
        "low": found.low if bounded else None,
        "high": found.high if bounded else None,
    }


def _show(rows: Sequence[Row], plan: Plan) -> Section:
    others = list(dict.fromkeys(str(row["other"]) for row in rows))
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in rows))

    def curve(dataset: str, other: str) -> Curve:
        found = [spread(_gains(rows, dataset, other, coverage)) for coverage in COVERAGES]
        return Curve(
            100 * np.array(COVERAGES),
            100 * np.array([point.mean for point in found]),
            100 * np.array([point.sd for point in found]),
        )

    drawing = small_multiples(
        [Panel(d, {f"over {other}": curve(d, other) for other in others}) for d in datasets],
        name="gain-at-equal-coverage",
        title=f"Accuracy gained by {_STAR} at equal coverage",
        caption=f"Share right among the accepted under {_STAR}, less that under another score when "
        "it accepts as many images, its most trusted; in percentage points, above zero is a gain. "
        f"{basis_words(rows, plan.convention)} Means over the draws; band: one standard deviation "
        "to each side.",
        x_label="accepted images (%)",
        y_label="accuracy gained (points)",
        highlight="over trustvlm",
        zero=True,
    )
    return Section(
        GAIN.name,
        GAIN.title,
        GAIN.question,
        drawings=(drawing,),
        tables=tuple(_table(rows, other, plan) for other in others),
    )


def _table(rows: Sequence[Row], other: str, plan: Plan) -> Table:
    found = [row for row in rows if row["other"] == other]
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in found))
    first = {(row["dataset"], row["coverage"]): row for row in found if not row["draw"]}
    return Table(
        name=f"gain-{other.replace('_', '-')}",
        title=f"Accuracy gained by {_STAR} over {other} at equal coverage",
        caption=f"Share right among the accepted under {_STAR}, less that under {other}, in "
        "percentage points, when both accept the same share of the images, their most trusted. In "
        f"brackets the 95 % interval of each difference alone (paired bootstrap over images, "
        f"{_RESAMPLES:,} resamples). {basis_words(first.values(), plan.convention)}",
        heads=(
            Head("Data set"),
            *(Head(f"{100 * c:g} % accepted", "points", falling=True) for c in _TABLED),
        ),
        lines=tuple(
            Line(dataset, tuple(_cell(first[dataset, c]) for c in _TABLED)) for dataset in datasets
        ),
    )


def _cell(row: Row) -> Cell:
    gain, low, high = (100 * float(row[key]) for key in ("gain", "low", "high"))
    return Cell(signed(gain), f"[{signed(low)}, {signed(high)}]", value=gain)


def _gains(rows: Sequence[Row], dataset: str, other: str, coverage: float) -> list[float]:
    return [
        float(row["gain"])
        for row in rows
        if (row["dataset"], row["other"]) == (dataset, other)
        and math.isclose(row["coverage"], coverage)
    ]


GAIN = Study(
    name="gain",
    title="What correcting labels gains at equal coverage",
    question=f"{_STAR} may correct the label that the text gave. How much more is right among the "
    "accepted images, when as many are accepted.",
    measure=_measure,
    show=_show,
    needed=("trustvlm", _STAR),
    varied={"coverages": COVERAGES, "resamples": _RESAMPLES},
)
