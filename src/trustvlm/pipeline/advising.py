"""What to do about the examples of a fitted model: their health, and which class to label next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.decisions.advice import Advice, label_next
from trustvlm.embeddings import Progress
from trustvlm.images import find_labelled
from trustvlm.pipeline.gathering import gather_all
from trustvlm.pipeline.leaks import set_apart
from trustvlm.pipeline.shot_health import ShotHealth, examine
from trustvlm.pipeline.verdicts import Verdicts
from trustvlm.scores import Evidence, ScoreResult, apply, get

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["Advised", "advise"]

# For scores that learn from the shots anew in every trial.
_SLOW = {"candidates": 12, "repeats": 3}


@dataclass(frozen=True)
class Advised:
    """The health of the shots and, with labelled images, what to label next.

    Attributes
    ----------
    shots
        Health of the shots.
    advice
        Which classes to label next; None without labelled images.
    excluded
        Labelled images that were left out because they are among the shots.
    failures
        Verdicts of the labelled images that could not be read.
    """

    shots: ShotHealth
    advice: Advice | None
    excluded: tuple[str, ...]
    failures: Verdicts

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "health": self.shots.to_dict(),
            "label_next": self._advice(),
            "excluded": list(self.excluded),
            "failures": [{"path": v.path, "error": v.error} for v in self.failures],
        }

    def _advice(self) -> dict[str, Any] | None:
        if self.advice is None:
            return None
        stored = asdict(self.advice)
        for found in stored["classes"]:
            found["label"] = self.shots.class_names[found["label"]]
        return stored


def advise(
    model: TrustVLM,
    labelled: Any = None,
    *,
    risk: float = 0.05,
    examples: int = 8,
    progress: Progress | None = None,
    on_trial: Callable[[int, int], None] | None = None,
) -> Advised:
    """Look after the shots of a fitted model, and find the classes of which more shots help most.

    Parameters
    ----------
    model
        A fitted model.
    labelled
        Labelled images beside the shots, as for `TrustVLM.evaluate`; those that are shots are left
        out. None looks at the shots alone.
    risk
        Share of errors among the accepted images that coverages are for, in (0, 1).
    examples
        How many further shots of a class are tried.
    progress
        Called with images done, images in all, and images that needed no forward pass.
    on_trial
        Called with trials done and the most that can be needed.

    Raises
    ------
    InputError
        If the model is not fitted, the input holds no class with two images besides shots, or a
        number is out of range.

    Notes
    -----
    Fine-tuned prototypes are not tuned again with every trial: it is the plain means that are
    tried.
    """
    shots = examine(model)
    if labelled is None:
        return Advised(shots, None, (), Verdicts([]))
    listing = find_labelled(labelled)
    labels = model.classes_.indices([str(ref.label) for ref in listing.refs])
    found = gather_all(model, listing.refs, progress)
    fresh, excluded = set_apart(model, found, exclude=True, calibrated_on=False, purpose="")
    truth = labels[found.readable][fresh]
    trial = _Trial(model, found.image_embeddings[fresh], found.features[fresh], truth)
    advice = label_next(
        trial.judge,
        truth,
        n_classes=len(model.classes_),
        risk=risk,
        examples=examples,
        progress=on_trial,
        **({} if get(model.score).fit is None else _SLOW),
    )
    return Advised(shots, advice, excluded, Verdicts(found.failures))


class _Trial:
    """Judges labelled images after others of them joined the shots."""

    def __init__(
        self,
        model: TrustVLM,
        embeddings: NDArray[np.float32],
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
    ) -> None:
        self._score, self._parameters = model.score, model.parameters_
        self._shots = model.evidence_of_shots()
        self._logits = np.asarray(model.evidence(embeddings, features, shots=self._shots).logits)
        self._embeddings, self._features, self._labels = embeddings, features, labels

    def judge(self, joined: NDArray[np.int64], judged: NDArray[np.int64]) -> ScoreResult:
        """Score the images `judged` by index, with the images `joined` among the shots."""
        shots = self._shots

        def and_joined(support: Any, more: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([support, more[joined]])

        evidence = Evidence.of(
            logits=self._logits[judged],
            features=self._features[judged],
            image_embeddings=self._embeddings[judged],
            text_embeddings=shots.text_embeddings,
            support_features=and_joined(shots.support_features, self._features),
            support_labels=and_joined(shots.support_labels, self._labels),
            support_logits=and_joined(shots.support_logits, self._logits),
            support_image_embeddings=and_joined(shots.support_image_embeddings, self._embeddings),
        )
        return apply(self._score, evidence, **self._parameters)
