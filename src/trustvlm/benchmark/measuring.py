"""Measure scores with one draw of the shots: the same shots and images for all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm import metrics
from trustvlm.benchmark.arrays import ArraySet
from trustvlm.benchmark.tuning import Tuned, Tuning
from trustvlm.exceptions import TrustVLMWarning, UndefinedMetricWarning
from trustvlm.scores import ScoreResult, get, names, prepare
from trustvlm.scores.computing import score_together
from trustvlm.scores.shots import draw_shots

__all__ = [
    "Measured",
    "draw_rows",
    "evaluate_quietly",
    "measure_draw",
    "usable_scores",
    "values_of",
]

_OF_SHOTS = ("bank", "support_features", "support_labels", "support_logits")


@dataclass(frozen=True)
class Measured:
    """One score on one test set, with one draw of the shots."""

    dataset: str
    score: str
    shots: int
    draw: int
    result: ScoreResult
    correct: NDArray[np.bool_]
    measured: metrics.Evaluation
    tuned: Tuned = field(default_factory=Tuned)

    def row(self) -> dict[str, Any]:
        """Return the cell as a flat row; undefined metrics are None."""
        return {
            "dataset": self.dataset,
            "score": self.score,
            "shots": self.shots,
            "draw": self.draw,
            **values_of(self.measured),
        }

    def settings(self) -> dict[str, Any]:
        """Return all the score's parameters, and how some of them were selected, if they were."""
        chosen = self.tuned.selection
        return {
            "parameters": {**get(self.score).parameters, **self.tuned.parameters},
            **({} if chosen is None else {"selection": chosen.to_dict()}),
        }


def usable_scores(support: ArraySet, wanted: Sequence[str] | None = None) -> list[str]:
    """Return the scores that these arrays have the evidence for; wanted ones must be.

    Raises
    ------
    InputError, EvidenceMissingError
        If a wanted score does not exist, or lacks evidence.
    """
    evidence = support.shots(np.arange(len(support))).with_images(
        logits=support.logits[:1],
        features=support.features[:1],
        image_embeddings=None if support.image_embeddings is None else support.image_embeddings[:1],
    )
    if wanted is None:
        return [name for name, needs in names().items() if all(map(evidence.has, needs))]
    for name in wanted:
        evidence.demand(get(name).needs, by=name)
    return list(dict.fromkeys(wanted))


def measure_draw(
    support: ArraySet,
    tests: Sequence[ArraySet],
    scores: Sequence[str],
    shots: int,
    draw: int,
    convention: str = "exact",
    tuning: Tuning | None = None,
    fixed: dict[tuple[str, str], Measured] | None = None,
    chosen: NDArray[np.int64] | None = None,
) -> Iterator[Measured]:
    """Measure scores with one draw of the shots, on every test set.

    `tuning` sets their parameters, which it may select anew for these shots. `fixed` carries the
    scores that do not depend on shots from one call to the next. `chosen` are rows of `support`
    that have been drawn already.
    """
    fixed = {} if fixed is None else fixed
    if chosen is None:
        chosen = draw_rows(support, shots, draw)
    known = support.shots(chosen)
    settings = (tuning or Tuning()).settings(scores, known)
    fixed_already = {
        name
        for name in scores
        if not any(need in _OF_SHOTS for need in get(name).needs)
        and all((test.name, name) in fixed for test in tests)
    }
    prepared = {
        name: prepare(name, known, **settings[name].parameters)
        for name in scores
        if name not in fixed_already
    }
    results = {test.name: score_together(prepared, test.about(known)) for test in tests}
    for name in scores:
        for test in tests:
            if name in fixed_already:
                yield replace(fixed[test.name, name], shots=shots, draw=draw)
                continue
            result = results[test.name][name]
            correct = result.prediction == test.labels
            found = evaluate_quietly(result.confidence, correct, convention)
            cell = Measured(test.name, name, shots, draw, result, correct, found, settings[name])
            fixed[test.name, name] = cell
            yield cell


def draw_rows(support: ArraySet, shots: int, draw: int) -> NDArray[np.int64]:
    """Draw shots from arrays; warn, for draw 0, of classes that have too few."""
    drawn = draw_shots(support.labels, support.n_classes, shots, draw=draw)
    if draw == 0 and (drawn.counts < shots).any():
        few = int((drawn.counts < shots).sum())
        warnings.warn(
            f"{support.name}: {few} of {support.n_classes} classes have fewer than {shots} "
            "images: all of theirs are used",
            TrustVLMWarning,
            stacklevel=5,
        )
    return drawn.indices


def evaluate_quietly(
    confidence: ArrayLike, correct: ArrayLike, convention: str
) -> metrics.Evaluation:
    """Evaluate without warnings: undefined metrics are None in the rows, which says enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metrics.evaluate(confidence, correct, convention=convention)


def values_of(found: metrics.Evaluation) -> dict[str, Any]:
    """Return metrics as a row has them: fractions, None where undefined, and the count."""
    values = {name: getattr(found, name) for name in metrics.METRICS}
    return {
        **{name: None if math.isnan(value) else value for name, value in values.items()},
        "n": found.n,
    }
