"""Shots of one domain, test images of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.benchmark.dataset import ArraySet
from trustvlm.benchmark.encoded import Material
from trustvlm.benchmark.heat_maps import matrix_table, shift_figure
from trustvlm.benchmark.outputs import Section
from trustvlm.benchmark.results import Row
from trustvlm.benchmark.run import evaluate_quietly, values_of
from trustvlm.benchmark.studies.study import Plan, Study, prepared
from trustvlm.scores.few_shot import draw_shots
from trustvlm.tables.metrics import METRIC_COLUMNS
from trustvlm.tables.table import slug

_SCORES = ("trustvlm", "trustvlm_star")
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
    lending: list[int] = []
    for c in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == c))
        lending += members[: len(members) // 2].tolist()
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[lending] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def _measure(material: Material, plan: Plan) -> list[dict[str, Any]]:
    parts = {test.name: halves(test.labels) for test in material.tests}
    tests = [test.rows(parts[test.name][1]) for test in material.tests]
    seen = {content for test in tests for content in test.contents()}
    pools = {test.name: _unseen(test.rows(parts[test.name][0]), seen) for test in material.tests}
    shots = _shots_that_all_have(material, pools, plan)
    rows = []
    for draw in range(plan.draws):
        drawn: dict[str, tuple[ArraySet, NDArray[np.int64]]] = {
            material.support.name: (
                material.support,
                _first_of_each_class(material.support, material.draws[plan.largest, draw], shots),
            )
        }
        for name, pool in pools.items():
            drawn[name] = pool, draw_shots(pool.labels, pool.n_classes, shots, draw=draw).indices
        for place, (name, (pool, chosen)) in enumerate(drawn.items()):
            known = pool.shots(chosen)
            # Text alone needs no shots: it is the same whatever these are.
            wanted = _SCORES if place else ("msp", *_SCORES)
            for score, compute in prepared(material, plan.usable(wanted, material), known).items():
                for test in tests:
                    result = compute(test.about(known))
                    found = evaluate_quietly(
                        result.confidence, result.prediction == test.labels, plan.convention
                    )
                    rows.append(
                        {
                            "dataset": test.name,
                            "score": score,
                            "support": _NO_SHOTS if score == "msp" else name,
                            "shots": shots,
                            "draw": draw,
                            **values_of(found),
                            **material.about,
                        }
                    )
    return rows


def _unseen(pool: ArraySet, seen: set[bytes]) -> ArraySet:
    # A set may hold one image twice: no shot is a copy of a test image.
    return pool.rows(np.array([i for i, c in enumerate(pool.contents()) if c not in seen], int))


def _shots_that_all_have(material: Material, pools: Mapping[str, ArraySet], plan: Plan) -> int:
    """Return how many shots every class has in every domain that has the class at all."""
    drawn = material.support.labels[material.draws[plan.largest, 0]]
    counts = [np.bincount(labels) for labels in (drawn, *(pool.labels for pool in pools.values()))]
    smallest = min((int(found[found > 0].min()) for found in counts if found.any()), default=1)
    return min(plan.largest, smallest)


def _first_of_each_class(
    support: ArraySet, drawn: NDArray[np.int64], shots: int
) -> NDArray[np.int64]:
    labels = support.labels[drawn]
    return np.concatenate([drawn[labels == c][:shots] for c in np.unique(labels)])


def _lacks(material: Material, plan: Plan) -> str:
    del plan
    return "" if len(material.tests) > 1 else "it has one test split, and hence one domain"


def _show(rows: Sequence[Row], plan: Plan) -> Section:
    column = METRIC_COLUMNS[plan.metric]
    drawings, tables = [], []
    for domain in dict.fromkeys(_set_of(row) for row in rows):
        for score in _SCORES:
            found = [_within(row) for row in rows if _set_of(row) == domain]
            found = [row for row in found if row["score"] in ("msp", score)]
            if not any(row["score"] == score for row in found):
                continue
            common: dict[str, Any] = {
                "name": f"shift-{slug(plan.metric)}-{slug(domain)}-{slug(score)}",
                "of": f"{score}, and msp where there are no shots",
                "convention": plan.convention,
            }
            drawings.append(shift_figure(found, plan.metric, **common))
            tables.append(
                matrix_table(
                    found,
                    plan.metric,
                    keys=("support", "dataset"),
                    words=("shots from", "tested on"),
                    title=f"{column.title} of {score} on {domain}, shots of each domain",
                    **common,
                )
            )
    return Section(
        SHIFT.name, SHIFT.title, SHIFT.question, drawings=tuple(drawings), folded=tuple(tables)
    )


def _set_of(row: Row) -> str:
    """Return the data set of a split: `pacs/test` and `pacs__test` are of pacs."""
    return _parts(str(row["dataset"]))[0]


def _within(row: Row) -> Row:
    """Leave the data set's name out of the names of its splits."""
    return {**row, **{key: _parts(str(row[key]))[1] for key in ("dataset", "support")}}


def _parts(name: str) -> tuple[str, str]:
    first, _, rest = name.partition("/" if "/" in name else "__")
    return first, rest or first


SHIFT = Study(
    name="shift",
    title="When the shots are of another domain",
    question="Whether examples of one domain help to verify images of another. Half of each test "
    "split, class by class, lends shots, and the other half is tested, whatever the shots are "
    "from; every domain lends as many shots of a class as the smallest class of all domains has.",
    measure=_measure,
    show=_show,
    lacks=_lacks,
    needed=("msp", "trustvlm"),
)
