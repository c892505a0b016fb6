"""How much the weight and the temperature matter, shown on test images: not a way to choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trustvlm.benchmark.captions import basis_words, capitalised
from trustvlm.benchmark.encoded import Material
from trustvlm.benchmark.heat_maps import matrix_table, sensitivity_figure
from trustvlm.benchmark.outputs import Section
from trustvlm.benchmark.results import Row, value_of
from trustvlm.benchmark.run import evaluate_quietly, values_of
from trustvlm.benchmark.statistics import spread
from trustvlm.benchmark.studies.study import Plan, Study
from trustvlm.pipeline.select import TEMPERATURES, WEIGHTS
from trustvlm.plots.figure import Figure
from trustvlm.plots.panels import Curve, Panel, small_multiples
from trustvlm.scores import ScoreResult, get
from trustvlm.scores.comparison import Comparison, compare
from trustvlm.scores.prototype_scores import sweep_comparison
from trustvlm.tables.metrics import METRIC_COLUMNS, axis_words, unit_words
from trustvlm.tables.table import slug

BANNER = "TEST images: shows how settings matter, never how to choose"
_CAUTION = (
    "These are test images: a setting that is chosen here is chosen on test data. To choose one, "
    "use the preset loo or validation, which never see them."
)


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    rows = []
    for draw in range(plan.draws):
        known = material.support.shots(material.draws[plan.largest, draw])
        for test in material.tests:
            found = compare(test.about(known))
            for about, result in _every_setting(found):
                measured = evaluate_quietly(
                    result.confidence, result.prediction == test.labels, plan.convention
                )
                rows.append(
                    {
                        "dataset": test.name,
                        **about,
                        "shots": plan.largest,
                        "draw": draw,
                        **values_of(measured),
                        **material.about,
                    }
                )
    return rows


def _every_setting(found: Comparison) -> list[tuple[dict[str, Any], ScoreResult]]:
    """Return the results of both variants under the candidates of the presets that select."""
    return [
        ({"score": score, "weight": weight, "temperature": temperature}, result)
        for score in ("trustvlm", "trustvlm_star")
        for (weight, temperature), result in sweep_comparison(score, found, WEIGHTS, TEMPERATURES)
    ]


def _show(rows: Sequence[Row], plan: Plan) -> Section:
    column = METRIC_COLUMNS[plan.metric]
    plain, star = (
        [row for row in rows if row["score"] == score] for score in ("trustvlm", "trustvlm_star")
    )
    defaults = get("trustvlm_star").parameters
    common: dict[str, Any] = {"convention": plan.convention, "caution": _CAUTION}
    return Section(
        SENSITIVITY.name,
        SENSITIVITY.title,
        f"{SENSITIVITY.question} {_CAUTION}",
        drawings=(
            sensitivity_figure(
                star,
                plan.metric,
                chosen=(defaults["weight"], defaults["temperature"]),
                banner=BANNER,
                convention=plan.convention,
            ),
            _weight_figure(rows, plan),
        ),
        folded=(
            matrix_table(
                star,
                plan.metric,
                keys=("weight", "temperature"),
                words=("weight r", "temperature T"),
                name=f"sensitivity-{slug(plan.metric)}",
                title=f"{column.title} of trustvlm_star by weight and temperature, on TEST images",
                **common,
            ),
            matrix_table(
                plain,
                plan.metric,
                keys=("dataset", "weight"),
                words=("data set", "weight r"),
                name=f"sensitivity-weight-{slug(plan.metric)}",
                title=f"{column.title} of trustvlm by weight, on TEST images",
                **common,
            ),
        ),
    )


def _weight_figure(rows: Sequence[Row], plan: Plan) -> Figure:
    """Both variants against the weight, on each data set; the default is a line."""
    column, defaults = METRIC_COLUMNS[plan.metric], get("trustvlm_star").parameters
    shown = [row for row in rows if row["temperature"] in (None, defaults["temperature"])]
    weights = sorted({row["weight"] for row in shown})

    def curve(dataset: str, score: str) -> Curve:
        spreads = [
            spread(
                [
                    value_of(row, plan.metric)
                    for row in shown
                    if (row["dataset"], row["score"], row["weight"]) == (dataset, score, weight)
                ]
            )
            for weight in weights
        ]
        return Curve.of_spreads(range(len(weights)), spreads, column.scale)

    return small_multiples(
        [
            Panel(dataset, {s: curve(dataset, s) for s in dict.fromkeys(r["score"] for r in shown)})
            for dataset in dict.fromkeys(str(row["dataset"]) for row in shown)
        ],
        name=f"sensitivity-weight-{slug(plan.metric)}",
        title=f"{column.title} by weight, on TEST images",
        caption=f"{BANNER}. {capitalised(unit_words(column))}, against the weight r of the visual "
        f"term; trustvlm_star at T = {defaults['temperature']:g}. The dotted line is the default, "
        f"r = {defaults['weight']:g}, which nothing was tuned for; r = 0 is MSP. "
        f"{basis_words(shown, plan.convention)} Band: one standard deviation over the draws to "
        "each side.",
        x_label="weight r of the visual term",
        y_label=axis_words(column),
        highlight="trustvlm",
        ticks={float(place): f"{weight:g}" for place, weight in enumerate(weights)},
        markers=True,
        banner=BANNER,
        marked=float(weights.index(defaults["weight"])),
    )


SENSITIVITY = Study(
    name="sensitivity",
    title="How much weight and temperature matter (TEST images: not a way to choose them)",
    question="How far results depend on the weight of the visual term and on the temperature.",
    measure=_measure,
    show=_show,
    needed=("trustvlm", "trustvlm_star"),
    varied={"weight": WEIGHTS, "temperature": TEMPERATURES},
)
