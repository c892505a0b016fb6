"""What a comparison of two runs found, in words and in table cells."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from trustvlm.report.columns import COLUMNS, MetricColumn, number
from trustvlm.report.comparing import Compared, Difference
from trustvlm.report.wording import counted, percent, shortened

__all__ = [
    "better",
    "comparison_cautions",
    "comparison_findings",
    "p_value_text",
    "run_facts",
    "shown",
]


def comparison_findings(found: Compared) -> list[str]:
    """Return the headline: which run is better by AURC, by accuracy, and how sure that is."""
    a, b = found.a.name, found.b.name
    switched = found.switched
    sentences = [f"{counted(found.n, 'image')} in both runs.", _aurc(found)]
    moved = switched.only_a + switched.only_b
    if not moved:
        sentences.append("Every image is labelled right by both runs or by neither.")
    else:
        sentences.append(
            f"{b} labels {counted(switched.only_b, 'image')} right that {a} labels wrong, and "
            f"{switched.only_a:,} the other way round: {_sure(switched.p_value)} "
            "(McNemar's exact test)."
        )
    return sentences


def _aurc(found: Compared) -> str:
    aurc = found.of("aurc")
    if math.isnan(aurc.difference):
        return "The AURC is undefined for one of the runs, so there is nothing to compare by it."
    leader = found.b.name if aurc.difference < 0 else found.a.name
    values = f"{number(1000 * aurc.a, 1)} and {number(1000 * aurc.b, 1)} (x1000, lower is better)"
    interval = (
        f"difference {number(1000 * aurc.difference, 1)}, "
        f"{100 * aurc.level:g}\N{NO-BREAK SPACE}% interval {number(1000 * aurc.low, 1)} to "
        f"{number(1000 * aurc.high, 1)}, p {p_value_text(aurc.p_value)}"
    )
    if aurc.difference == 0:
        return f"The AURC is the same, {number(1000 * aurc.a, 1)} (x1000)."
    if aurc.p_value <= 1 - aurc.level:
        return f"By AURC {leader} is better: {values}; {interval}."
    return f"These images cannot tell which AURC is better: {values}; {interval}."


def _sure(p_value: float) -> str:
    told = f"p {p_value_text(p_value)}"
    return f"more than chance, {told}" if p_value <= 0.05 else f"no more than chance may do, {told}"


def comparison_cautions(found: Compared) -> list[str]:
    """Return what a reader must know before relying on the comparison."""
    pairing, a, b = found.pairing, found.a, found.b
    notes = []
    if pairing.only_a or pairing.only_b:
        notes.append(
            f"Left out: {counted(pairing.only_a, 'image')} of {a.name} and "
            f"{counted(pairing.only_b, 'image')} of {b.name} that the other run does not have."
        )
    if pairing.by == "path":
        notes.append("Images were paired by path, as their contents are not known.")
    if pairing.relabelled:
        notes.append(
            f"{counted(pairing.relabelled, 'image')} of both runs have another true label in "
            "either: each run is judged by its own."
        )
    notes.append(
        "The tests speak of other images like these. They do not speak of other shots, and a "
        "model or score that was chosen because it did well on these images looks better than "
        "it is."
    )
    notes.append(
        f"AURC is the metric to judge by, whatever the others say: each of the other "
        f"{len(found.differences) - 1} is called better or worse only where that holds after "
        "Holm's correction for all of them."
    )
    return notes


def better(found: Compared, difference: Difference) -> str:
    """Name the run that a metric favours by more than chance; "" if it favours none."""
    if math.isnan(difference.difference) or not difference.significant:
        return ""
    column = next(c for c in COLUMNS if c.key == difference.metric)
    b_better = (difference.difference > 0) == column.higher_is_better
    return found.b.name if b_better else found.a.name


def p_value_text(p_value: float) -> str:
    """Write a p-value with three decimals.

    Examples
    --------
    >>> p_value_text(0.0312), p_value_text(0.00001), p_value_text(float("nan"))
    ('0.031', 'under 0.001', 'undefined')
    """
    if math.isnan(p_value):
        return "undefined"
    return "under 0.001" if p_value < 0.0005 else f"{p_value:.3f}"


def shown(column: MetricColumn, value: float) -> str:
    """Write a metric in the unit of its column."""
    return number(value * column.scale)


def run_facts(found: Compared) -> list[tuple[str, str, str]]:
    """Return what each run was made with: terms, and the values of a and of b."""
    told = [_facts(found.a.told), _facts(found.b.told)]
    rows = [
        ("score", found.a.score, found.b.score),
        ("images", f"{len(found.a):,}", f"{len(found.b):,}"),
        (
            "right labels, of the shared images",
            percent(float(found.correct_a.mean())),
            percent(float(found.correct_b.mean())),
        ),
    ]
    terms = dict.fromkeys([*told[0], *told[1]])
    rows += [(term, told[0].get(term, ""), told[1].get(term, "")) for term in terms]
    return rows


def _facts(told: Mapping[str, Any]) -> dict[str, str]:
    from trustvlm.pipeline.evaluation_file import fingerprint_of_shots

    data, model = _mapping(told.get("data")), _mapping(told.get("model"))
    shots = _mapping(model.get("shots"))
    rows = {"data set": data.get("name"), "data fingerprint": data.get("fingerprint")}
    for role, described in _mapping(model.get("models")).items():
        rows[role] = _mapping(described).get("spec")
        rows[f"{role} fingerprint"] = _mapping(described).get("fingerprint")
    rows["shots per class"] = shots.get("per_class")
    rows["draw of the shots"] = shots.get("draw")
    rows["fingerprint of the shots"] = fingerprint_of_shots(model) or None
    rows["parameters"] = _mapping(model.get("score")).get("parameters") or None
    rows["made by"] = model.get("created_by")
    return {
        term: shortened(value if isinstance(value, str) else json.dumps(value), 200)
        for term, value in rows.items()
        if value is not None
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
