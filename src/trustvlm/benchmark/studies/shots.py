"""Studies of the shots: how many it takes, classes without any, and shots of another domain."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.benchmark.analysis import accepted
from trustvlm.benchmark.captions import describe_basis
from trustvlm.benchmark.dataset import ArraySet, EncodedDataset
from trustvlm.benchmark.figures import shots_figure
from trustvlm.benchmark.heat_maps import heat_map, matrix_table
from trustvlm.benchmark.results import Row, value_of
from trustvlm.benchmark.run import metric_values
from trustvlm.benchmark.score_tables import shots_table
from trustvlm.benchmark.statistics import NOTHING, spread_over_draws
from trustvlm.benchmark.studies.study import (
    ComparisonStudy,
    ReportSection,
    Study,
    StudySettings,
    metrics_of,
    prepared_scores,
)
from trustvlm.plots.figure import Figure
from trustvlm.plots.panels import Curve, Panel, small_multiples
from trustvlm.scores.few_shot import draw_shots
from trustvlm.tables.metrics import METRIC_COLUMNS, describe_unit, label_axis, number
from trustvlm.tables.table import Head, Line, Spread, Table, slug, spread_cell

# How many shots it takes, and how much depends on which images are drawn.


class ShotsStudy(ComparisonStudy):
    """A metric against the number of shots, with its spread over the draws."""

    name = "shots"
    title = "How many shots it takes"
    question = (
        "What more examples per class buy, and how far the choice of the examples matters: the "
        "band is the spread over draws. Scores of the logits alone do not depend on the shots."
    )
    # As many as there are colours; the first are those of every other figure.
    scores = (
        *("msp", "image_similarity", "trustvlm", "trustvlm_star"),
        *("prototype_posterior", "knn", "tip_adapter", "gda"),
    )

    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Measure the scores at every number of shots, with every draw."""
        return self.rows(encoded, settings, settings.shots)

    def lacks(self, encoded: EncodedDataset, settings: StudySettings) -> str:
        """Say whether there is one number of shots only."""
        del encoded
        return "" if len(settings.shots) > 1 else "it has one number of shots"

    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Draw curves of means over the data sets, and of each data set."""
        analysis = self.analyse(rows, settings)
        results, metric = analysis.results, settings.metric
        each = (False, True) if len(results.datasets) > 1 else (False,)
        return self.section(
            [shots_figure(analysis, metric, results.scores, by_dataset=one) for one in each],
            [shots_table(analysis, metric)],
            [shots_table(analysis, other) for other in analysis.metrics if other != metric],
        )


# Classes without any shot: how they fare, and how the others do.

SHARES = (0.0, 0.25, 0.5, 0.75)
GROUPS = {
    "all": "all images",
    "covered": "classes with shots",
    "uncovered": "classes without shots",
}
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


class MissingStudy(Study):
    """A random share of the classes loses all of its shots."""

    name = "missing"
    title = "When classes have no shots at all"
    question = (
        "What happens to images whose class nobody has examples of, and to the others, when a "
        "random share of the classes loses all of its shots."
    )
    scores = ("msp", "image_similarity", "trustvlm", "trustvlm_star", "knn", "tip_adapter")
    varied = {"missing": SHARES, "coverage": _COVERAGE}  # noqa: RUF012 -- as of `Study`

    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Measure each group of images by itself, and how many of it are accepted."""
        rows = []
        usable = settings.usable(self.scores, encoded)
        for draw in range(settings.draws):
            drawn = encoded.draws[settings.largest, draw]
            for share in SHARES:
                without = classes_without_shots(encoded.support.n_classes, share, draw)
                kept = drawn[~np.isin(encoded.support.labels[drawn], without)]
                shots = encoded.support.shots(kept)
                for score, compute in prepared_scores(encoded, usable, shots).items():
                    for test in encoded.tests:
                        result = compute(test.about(shots))
                        uncovered = np.isin(test.labels, without)
                        right = result.prediction == test.labels
                        rows += [
                            {
                                "dataset": test.name,
                                "score": score,
                                "shots": settings.largest,
                                "draw": draw,
                                "missing": share,
                                **of_group,
                                **encoded.about,
                            }
                            for of_group in _by_group(
                                result.confidence, right, uncovered, settings.convention
                            )
                        ]
        return rows

    def lacks(self, encoded: EncodedDataset, settings: StudySettings) -> str:
        """Say whether there is one class only."""
        del settings
        return "" if encoded.support.n_classes > 1 else "it has one class"

    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Draw the metric and the accepted share against the share of classes without shots."""
        column = METRIC_COLUMNS[settings.metric]
        metric_figure = _missing_figure(
            rows,
            settings.metric,
            settings.convention,
            scale=column.scale,
            name=f"missing-{slug(settings.metric)}",
            title=f"{column.title} when classes lack shots",
            says=describe_unit(column),
            y_label=label_axis(column),
        )
        accepted_figure = _missing_figure(
            [row for row in rows if row["group"] != "all"],
            "accepted",
            settings.convention,
            scale=100,
            name="missing-accepted",
            title="Who is accepted when classes lack shots",
            says=f"Share of a group among the {100 * _COVERAGE:g} % most trusted, in percent",
            y_label="accepted (%)",
        )
        return self.section([metric_figure, accepted_figure], [_missing_table(rows, settings)])

    def finding(self, rows: Sequence[Row], settings: StudySettings) -> str:
        """Say how images of classes without shots fare where most classes have none."""
        column, share = METRIC_COLUMNS[settings.metric], max(SHARES)
        means = _means(rows, settings.metric)
        shown = [
            f"{score} has "
            + " and ".join(
                f"{number(column.scale * means[score, share, group].mean, 1)} on {GROUPS[group]}"
                for group in ("covered", "uncovered")
            )
            for score in ("trustvlm", "msp")
            if {(score, share, "covered"), (score, share, "uncovered")} <= means.keys()
        ]
        if not shown:
            return ""
        return (
            f"{describe_unit(column)}, where {100 * share:g} % of the classes have no shots: "
            f"{'; '.join(shown)}."
        )


def _by_group(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    uncovered: NDArray[np.bool_],
    convention: str,
) -> Iterator[dict[str, Any]]:
    taken = accepted(confidence, _COVERAGE)
    groups = (np.ones_like(uncovered), ~uncovered, uncovered)
    for group, members in zip(GROUPS, groups, strict=True):
        yield {
            "group": group,
            "accepted": float(taken[members].mean()) if members.any() else None,
            **metric_values(confidence[members], right[members], convention),
        }


def _missing_figure(
    rows: Sequence[Row],
    key: str,
    convention: str,
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
        spreads = [means.get((score, share, group), NOTHING) for share in shares]
        return Curve.of_spreads([100 * share for share in shares], spreads, scale)

    return small_multiples(
        [
            Panel(GROUPS[group], {score: curve(score, group) for score in scores})
            for group in dict.fromkeys(str(row["group"]) for row in rows)
        ],
        name=name,
        title=title,
        caption=f"{says}, against the share of classes without shots, by whether the true class "
        "has shots. Band: one SD over the draws.",
        notes=f"{describe_basis(rows, convention)} Means over data sets; a data set counts where "
        "the group has images and the metric is defined. Band: one standard deviation over the "
        "draws to each side.",
        x_label="classes without shots (%)",
        y_label=y_label,
        highlight="trustvlm",
        ticks={100 * share: f"{100 * share:g}" for share in shares},
        markers=True,
    )


def _missing_table(rows: Sequence[Row], settings: StudySettings) -> Table:
    column = METRIC_COLUMNS[settings.metric]
    metric, taken = _means(rows, settings.metric), _means(rows, "accepted")
    shares = sorted({float(row["missing"]) for row in rows})
    scores = list(dict.fromkeys(str(row["score"]) for row in rows))
    unit = "%" if column.scale == 100 else f"×{column.scale}"
    shown = [
        *((metric, group, column.scale) for group in GROUPS),
        *((taken, group, 100) for group in ("covered", "uncovered")),
    ]
    return Table(
        name=f"missing-{slug(settings.metric)}",
        title=f"{column.title}, and who is accepted, when classes lack shots",
        caption=f"{describe_unit(column)}, and the percent of a group among the "
        f"{100 * _COVERAGE:g} % most trusted images, by whether the true class has shots; mean ± "
        "SD over draws.",
        notes=f"{describe_basis(rows, settings.convention)} Means over data sets ± standard "
        "deviation over draws.",
        heads=(
            Head("Score, without shots"),
            *(
                Head(f"{column.title}, {group}", unit, column.higher_is_better)
                for group in ("all", "with shots", "without")
            ),
            Head("Accepted, with shots", "%", True),
            Head("without", "%", True),
        ),
        lines=tuple(
            Line(
                f"{score}, {100 * share:g} %",
                tuple(
                    spread_cell(means.get((score, share, group), NOTHING), scale)
                    for means, group, scale in shown
                ),
            )
            for score in scores
            for share in shares
        ),
        breaks=tuple(len(shares) * rank for rank in range(1, len(scores))),
    )


def _means(rows: Sequence[Row], key: str) -> dict[tuple[str, float, str], Spread]:
    """Average over the data sets that have a value, then over draws."""
    values: dict[tuple[str, float, str], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        value = value_of(row, key)
        if not math.isnan(value):
            cell = str(row["score"]), float(row["missing"]), str(row["group"])
            values[cell].append((int(row["draw"]), value))
    return {cell: spread_over_draws(of_cell) for cell, of_cell in values.items()}


# Shots of one domain, test images of another.

_NO_SHOTS = "no shots: msp"


def halves(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part images into those that may lend shots and those that are tested, class by class.

    Of an odd number the tested ones have one more, so that a single image is tested.

    Examples
    --------
    >>> lending, tested = halves(np.array([0, 0, 0, 0, 1]))
    >>> len(lending), len(tested), bool(4 in tested)
    (2, 3, True)
    """
    rng = np.random.default_rng(0)
    lends = np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == c))
        lends[members[: len(members) // 2]] = True
    return np.flatnonzero(lends), np.flatnonzero(~lends)


class ShiftStudy(Study):
    """A metric by the domain that the shots are from and the one that is tested."""

    name = "shift"
    title = "When the shots are of another domain"
    question = (
        "Whether examples of one domain help to verify images of another. Half of each test split, "
        "class by class, lends shots, and the other half is tested, whatever the shots are from; "
        "every domain lends as many shots of a class as the smallest class of all domains has."
    )
    scores = ("trustvlm", "trustvlm_star")
    needed = ("msp", "trustvlm")

    def measure(self, encoded: EncodedDataset, settings: StudySettings) -> list[dict[str, Any]]:
        """Measure the same test images with shots of every domain, and without shots."""
        parts = {test.name: halves(test.labels) for test in encoded.tests}
        tests = [test.rows(parts[test.name][1]) for test in encoded.tests]
        tested = {content for test in tests for content in test.contents()}
        pools = {
            test.name: _unseen(test.rows(parts[test.name][0]), tested) for test in encoded.tests
        }
        support = encoded.support
        n_shots = _shots_that_all_have(encoded, pools, settings.largest)
        rows = []
        for draw in range(settings.draws):
            own = _first_of_each_class(support, encoded.draws[settings.largest, draw], n_shots)
            shots_from = {support.name: support.shots(own)}
            for name, pool in pools.items():
                drawn = draw_shots(pool.labels, pool.n_classes, n_shots, draw=draw).indices
                shots_from[name] = pool.shots(drawn)
            for rank, (name, shots) in enumerate(shots_from.items()):
                # Text alone needs no shots: it is the same whatever these are.
                wanted = self.scores if rank else ("msp", *self.scores)
                usable = settings.usable(wanted, encoded)
                for score, compute in prepared_scores(encoded, usable, shots).items():
                    rows += [
                        {
                            "dataset": test.name,
                            "score": score,
                            "support": _NO_SHOTS if score == "msp" else name,
                            "shots": n_shots,
                            "draw": draw,
                            **metrics_of(compute(test.about(shots)), test, settings.convention),
                            **encoded.about,
                        }
                        for test in tests
                    ]
        return rows

    def lacks(self, encoded: EncodedDataset, settings: StudySettings) -> str:
        """Say whether there is one domain only."""
        del settings
        return "" if len(encoded.tests) > 1 else "it has one test split, and hence one domain"

    def show(self, rows: Sequence[Row], settings: StudySettings) -> ReportSection:
        """Show a heat map and a table for each data set and score."""
        column = METRIC_COLUMNS[settings.metric]
        figures, tables = [], []
        for domain in dict.fromkeys(_set_and_split(row["dataset"])[0] for row in rows):
            of_set = [_without_set(r) for r in rows if _set_and_split(r["dataset"])[0] == domain]
            for score in self.scores:
                shown = [row for row in of_set if row["score"] in ("msp", score)]
                if not any(row["score"] == score for row in shown):
                    continue
                common: dict[str, Any] = {
                    "keys": ("support", "dataset"),
                    "words": ("shots from", "tested on"),
                    "name": f"shift-{slug(settings.metric)}-{slug(domain)}-{slug(score)}",
                    "of": f"{score}, and msp where there are no shots",
                    "convention": settings.convention,
                }
                figures.append(
                    heat_map(
                        shown,
                        settings.metric,
                        title=f"{column.title} with shots of another domain",
                        shade_columns=True,
                        **common,
                    )
                )
                tables.append(
                    matrix_table(
                        shown,
                        settings.metric,
                        title=f"{column.title} of {score} on {domain}, shots of each domain",
                        **common,
                    )
                )
        return self.section(figures, folded=tables)

    def finding(self, rows: Sequence[Row], settings: StudySettings) -> str:
        """Say what shots of the tested domain are worth, against those of others and none."""
        column = METRIC_COLUMNS[settings.metric]
        values: dict[str, list[float]] = defaultdict(list)
        for row in map(_without_set, rows):
            value = value_of(row, settings.metric)
            if row["score"] not in ("msp", "trustvlm") or math.isnan(value):
                continue
            of = "msp" if row["score"] == "msp" else str(row["support"] == row["dataset"])
            values[of].append(column.scale * value)
        if len(values) < 3:
            return ""
        own, other, none = (
            number(float(np.mean(values[of])), 1) for of in ("True", "False", "msp")
        )
        return (
            f"{describe_unit(column)}, of trustvlm: {own} with shots of the tested domain, {other} "
            f"with those of another; {none} without shots (msp). Means over domains and draws."
        )


def _unseen(pool: ArraySet, tested: set[bytes]) -> ArraySet:
    # A set may hold one image twice: no shot is a copy of a test image.
    return pool.rows(np.array([i for i, c in enumerate(pool.contents()) if c not in tested], int))


def _shots_that_all_have(
    encoded: EncodedDataset, pools: Mapping[str, ArraySet], largest: int
) -> int:
    """Return how many shots every class has in every domain that has the class at all."""
    drawn = encoded.support.labels[encoded.draws[largest, 0]]
    counts = [np.bincount(labels) for labels in (drawn, *(pool.labels for pool in pools.values()))]
    return min((int(n[n > 0].min()) for n in counts if n.any()), default=1)


def _first_of_each_class(
    support: ArraySet, drawn: NDArray[np.int64], shots: int
) -> NDArray[np.int64]:
    labels = support.labels[drawn]
    return np.concatenate([drawn[labels == c][:shots] for c in np.unique(labels)])


def _set_and_split(name: str) -> tuple[str, str]:
    """Part the name of a split: `pacs/test` and `pacs__test` are of pacs."""
    first, _, rest = name.partition("/" if "/" in name else "__")
    return first, rest or first


def _without_set(row: Row) -> Row:
    return {**row, **{key: _set_and_split(row[key])[1] for key in ("dataset", "support")}}
