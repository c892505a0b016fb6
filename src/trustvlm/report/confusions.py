"""The pairs of classes that are mistaken for each other most, with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trustvlm.report.wording import counted, percent

if TYPE_CHECKING:
    from trustvlm.pipeline.evaluation import EvaluationResult

__all__ = ["ConfusedImage", "Confusion", "confusions"]


@dataclass(frozen=True)
class ConfusedImage:
    """A picture to show: where its pixels are, its name, the model's confidence in its label."""

    file: Path
    path: str
    confidence: float


@dataclass(frozen=True)
class Confusion:
    """One class taken for another.

    Attributes
    ----------
    truth, label
        What the images show, and what they are labelled.
    count, of
        How many images of the true class carry this label, and how many images it has.
    back
        How many images are mistaken the other way round.
    images
        Some of them, most trusted first: the ones that a threshold would let through.
    """

    truth: str
    label: str
    count: int
    of: int
    back: int
    images: tuple[ConfusedImage, ...]

    @property
    def sentence(self) -> str:
        """How often, in words."""
        told = f"{counted(self.count, 'image')} of {self.of:,} ({percent(self.count / self.of, 0)})"
        return f"{told}; the other way round {self.back:,}" if self.back else told


def confusions(
    evaluation: EvaluationResult, pairs: int = 8, pictures: int = 3
) -> tuple[Confusion, ...]:
    """Return the most frequent confusions of the model's own labels, the first classes on ties.

    Parameters
    ----------
    evaluation
        What `trustvlm evaluate` found.
    pairs, pictures
        At most so many confusions, with at most so many pictures each.
    """
    own = evaluation.results[evaluation.score]
    n_classes = len(evaluation.class_names)
    wrong = np.flatnonzero(~evaluation.correct())
    code = evaluation.labels[wrong] * n_classes + own.prediction[wrong]
    codes, counts = np.unique(code, return_counts=True)
    totals = np.bincount(evaluation.labels, minlength=n_classes)
    often = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    found = []
    for place in np.argsort(-counts, kind="stable")[:pairs]:
        truth, label = divmod(int(codes[place]), n_classes)
        members = wrong[code == codes[place]]
        shown = members[np.argsort(-own.confidence[members], kind="stable")[:pictures]]
        found.append(
            Confusion(
                truth=evaluation.class_names[truth],
                label=evaluation.class_names[label],
                count=int(counts[place]),
                of=int(totals[truth]),
                back=often.get(label * n_classes + truth, 0),
                images=tuple(
                    ConfusedImage(
                        Path(evaluation.files[i]),
                        evaluation.verdicts[int(i)].path,
                        float(own.confidence[i]),
                    )
                    for i in shown
                ),
            )
        )
    return tuple(found)
