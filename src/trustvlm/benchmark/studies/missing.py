"""Classes without any shot: how they fare, and how the others do."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.benchmark.analysis import accepted
from trustvlm.benchmark.captions import basis_words, capitalised
from trustvlm.benchmark.encoded import Material
from trustvlm.benchmark.outputs import Section
from trustvlm.benchmark.results import Row, value_of
from trustvlm.benchmark.run import evaluate_quietly, values_of
from trustvlm.benchmark.statistics import spread
from trustvlm.benchmark.studies.study import Plan, Study, prepared
from trustvlm.plots.figure import Figure
from trustvlm.plots.panels import Curve, Panel, small_multiples
from trustvlm.tables.metrics import METRIC_COLUMNS, axis_words, unit_words
from trustvlm.tables.table import Head, Line, Spread, Table, slug, spread_cell

SHARES = (0.0, 0.25, 0.5, 0.75)
GROUPS = {
    "all": "all images",
    "covered": "classes with shots",
    "uncovered": "classes without shots",
}
_SCORES = ("msp", "image_similarity", "trustvlm", "trustvlm_star", "knn", "tip_adapter")
# Share of all images that is accepted where groups are compared.
_COVERAGE = 0.8


def classes_without_shots(n_classes: int, share: float, draw: int) -> NDArray[np.int64]:
    """Choose a share of the classes at random; a larger share of the same draw holds a smaller one.

    At least one class keeps its shots.

    Examples
    --------
    >>> half, most = (classes_without_shots(4, share, draw=0) for share in (0.5, 0.75))
    >>> len(half), len(most), set(half) <= set(most)
    (2, 3, True)
    """
    order = np.random.default_rng(draw).permutation(n_classes)
    return order[: min(round(share * n_classes), n_classes - 1)]


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    rows = []
    scores = plan.usable(_SCORES, material)
    for draw in range(plan.draws):
        drawn = material.draws[plan.largest, draw]
        for share in SHARES:
            without = classes_without_shots(material.support.n_classes, share, draw)
            chosen = drawn[~np.isin(material.support.labels[drawn], without)]
            known = material.support.shots(chosen)
            for score, compute in prepared(material, scores, known).items():
                for test in material.tests:
                    result = compute(test.about(known))
                    about = {
                        "dataset": test.name,
                        "score": score,
                        "shots": plan.largest,
                        "draw": draw,
                        "missing": share,
                    }
                    uncovered = np.isin(test.labels, without)
                    right = result.prediction == test.labels
                    rows += [
                        {**about, **found, **material.about}
                        for found in _by_group(result.confidence, right, uncovered, plan)
                    ]
    return rows


def _by_group(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    uncovered: NDArray[np.bool_],
    plan: Plan,
) -> list[dict[str, Any]]:
    taken = accepted(confidence, _COVERAGE)
    rows = []
    for group, members in (
        ("all", np.ones_like(uncovered)),
        ("covered", ~uncovered),
        ("uncovered", uncovered),
    ):
        found = evaluate_quietly(confidence[members], right[members], plan.convention)
        share = float(taken[members].mean()) if members.any() else None
        rows.append({"group": group, "accepted": share, **values_of(found)})
    return rows


def _show(rows: Sequence[Row], plan: Plan) -> Section:
    return Section(
        MISSING.name,
        MISSING.title,
        MISSING.question,
        drawings=(_metric_figure(rows, plan), _accepted_figure(rows, plan)),
        tables=(_table(rows, plan),),
    )


def _metric_figure(rows: Sequence[Row], plan: Plan) -> Figure:
    column = METRIC_COLUMNS[plan.metric]
    return _figure(
        rows,
        plan.metric,
        plan,
        scale=column.scale,
        name=f"missing-{slug(plan.metric)}",
        title=f"{column.title} when classes lack shots",
        says=capitalised(unit_words(column)),
        y_label=axis_words(column),
    )


def _accepted_figure(rows: Sequence[Row], plan: Plan) -> Figure:
    return _figure(
        [row for row in rows if row["group"] != "all"],
        "accepted",
        plan,
        scale=100,
        name="missing-accepted",
        title="Who is accepted when classes lack shots",
        says=f"Share of a group's images that are among the {100 * _COVERAGE:g} % of all images "
        "that a score trusts most, in percent",
        y_label="accepted (%)",
    )


def _figure(
    rows: Sequence[Row],
    key: str,
    plan: Plan,
    *,
    scale: float,
    name: str,
    title: str,
    says: str,
    y_label: str,
) -> Figure:
    shares = sorted({float(row["missing"]) for row in rows})
    scores = list(dict.fromkeys(str(row["score"]) for row in rows))
    means = _means(rows, key)

    def curve(score: str, group: str) -> Curve:
        spreads = [means.get((score, share, group), _NOTHING) for share in shares]
        return Curve.of_spreads([100 * share for share in shares], spreads, scale)

    return small_multiples(
        [
            Panel(GROUPS[group], {score: curve(score, group) for score in scores})
            for group in dict.fromkeys(str(row["group"]) for row in rows)
        ],
        name=name,
        title=title,
        caption=f"{says}, against the share of classes without any shot, by whether the true class "
        f"of an image has shots. {basis_words(rows, plan.convention)} Means over data sets; a data "
        "set counts where the group has images and the metric is defined. Band: one standard "
        "deviation over the draws to each side.",
        x_label="classes without shots (%)",
        y_label=y_label,
        highlight="trustvlm",
        ticks={100 * share: f"{100 * share:g}" for share in shares},
        markers=True,
    )


def _table(rows: Sequence[Row], plan: Plan) -> Table:
    column = METRIC_COLUMNS[plan.metric]
    metric, taken = _means(rows, plan.metric), _means(rows, "accepted")
    shares = sorted({float(row["missing"]) for row in rows})
    scores = list(dict.fromkeys(str(row["score"]) for row in rows))
    unit = "%" if column.scale == 100 else f"×{column.scale}"
    return Table(
        name=f"missing-{slug(plan.metric)}",
        title=f"{column.title}, and who is accepted, when classes lack shots",
        caption=f"{capitalised(unit_words(column))}, and the share of a group's images that are "
        f"among the {100 * _COVERAGE:g} % of all images that a score trusts most, by whether the "
        f"true class of an image has shots. {basis_words(rows, plan.convention)} Means over data "
        "sets ± standard deviation over draws.",
        heads=(
            Head("Score, without shots"),
            *(
                Head(f"{column.title}, {words}", unit, column.higher_is_better)
                for words in ("all", "with shots", "without")
            ),
            Head("Accepted, with shots", "%", True),
            Head("without", "%", True),
        ),
        lines=tuple(
            Line(
                f"{score}, {100 * share:g} %",
                (
                    *(
                        spread_cell(metric.get((score, share, group), _NOTHING), column.scale)
                        for group in GROUPS
                    ),
                    *(
                        spread_cell(taken.get((score, share, group), _NOTHING), 100)
                        for group in ("covered", "uncovered")
                    ),
                ),
            )
            for score in scores
            for share in shares
        ),
        breaks=tuple(len(shares) * place for place in range(1, len(scores))),
    )


_NOTHING = Spread(math.nan, math.nan, 0)


def _means(rows: Sequence[Row], key: str) -> dict[tuple[str, float, str], Spread]:
    """Average over the data sets that have a value, then over draws."""
    values: dict[tuple[str, float, str], dict[int, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        cell = str(row["score"]), float(row["missing"]), str(row["group"])
        value = value_of(row, key)
        if not math.isnan(value):
            values[cell][int(row["draw"])].append(value)
    return {
        cell: spread([float(np.mean(found)) for found in by_draw.values()])
        for cell, by_draw in values.items()
    }


def _lacks(material: Material, plan: Plan) -> str:
    del plan
    return "" if material.support.n_classes > 1 else "it has one class"


MISSING = Study(
    name="missing",
    title="When classes have no shots at all",
    question="What happens to images whose class nobody has examples of, and to the others, when "
    "a random share of the classes loses all of its shots.",
    measure=_measure,
    show=_show,
    lacks=_lacks,
    varied={"missing": SHARES, "coverage": _COVERAGE},
)
