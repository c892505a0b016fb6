"""The registry: every confidence score under its name, with what it needs and where it is from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.scores.evidence import EVIDENCE_NAMES, Evidence
from trustvlm.scores.prototypes import PrototypeBank

__all__ = ["Score", "ScoreResult", "apply", "compute", "get", "names", "register"]


@dataclass(frozen=True)
class ScoreResult:
    """What a score says about n images.

    Attributes
    ----------
    prediction
        `(n,)` int64 class indices.
    confidence
        `(n,)` float64, higher is more trusted. Not a probability.
    """

    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A registered score: its function and the facts that tables and docs are rendered from.

    Attributes
    ----------
    name, formula, source
        The registered name, the formula in words of method.md's notation, the paper.
    needs
        Names of the pieces of `Evidence` that must be there.
    corrects
        True if the prediction may differ from the VLM's.
    parameters
        Keyword parameters and their defaults.
    fit
        Learns from the shots once, before the images are scored in blocks; None if there is
        nothing to learn.
    whole_batch
        True if a verdict depends on the other images of the batch, so blocks are not allowed.
    """

    name: str
    function: Callable[..., ScoreResult]
    needs: tuple[str, ...]
    formula: str
    source: str
    complexity: str
    corrects: bool = False
    whole_batch: bool = False
    fit: Callable[..., Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]


_REGISTRY: dict[str, Score] = {}


def register(
    name: str,
    *,
    needs: tuple[str, ...] = ("logits",),
    formula: str,
    source: str,
    complexity: str = "O(nC)",
    corrects: bool = False,
    whole_batch: bool = False,
    fit: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., ScoreResult]], Callable[..., ScoreResult]]:
    """Register a score: a function of `Evidence` (and of what `fit` learned) and keywords.

    `fit(evidence, **keywords)` learns from the shots once; what it returns is the second argument
    of the function. The score's parameters are the keyword-only ones of both.

    Raises
    ------
    InputError
        If the name is taken, or `needs` names no piece of `Evidence`.

    Examples
    --------
    >>> @register("constant", formula="1", source="an example")
    ... def constant(evidence):
    ...     '''Trust everything.'''
    ...     return ScoreResult(evidence.logits.argmax(axis=1), np.ones(evidence.n))
    >>> compute("constant", logits=[[0.0, 1.0]]).confidence
    array([1.])
    >>> unregister("constant")
    """
    unknown = set(needs) - set(EVIDENCE_NAMES)
    if unknown:
        raise InputError(f"`needs` of score `{name}` names no evidence: {sorted(unknown)}.")

    def decorate(function: Callable[..., ScoreResult]) -> Callable[..., ScoreResult]:
        if name in _REGISTRY:
            raise InputError(f"A score named `{name}` is already registered.")
        _REGISTRY[name] = Score(
            name=name,
            function=function,
            needs=needs,
            formula=formula,
            source=source,
            complexity=complexity,
            corrects=corrects,
            whole_batch=whole_batch,
            fit=fit,
            parameters={**_keywords(fit), **_keywords(function)},
        )
        return function

    return decorate


def unregister(name: str) -> None:
    """Take a score out of the registry."""
    get(name)
    del _REGISTRY[name]


def names() -> dict[str, tuple[str, ...]]:
    """Every registered score and the evidence that it needs.

    Examples
    --------
    >>> names()["msp"]
    ('logits',)
    """
    return {name: score.needs for name, score in _REGISTRY.items()}


def get(name: str) -> Score:
    """Return a registered score.

    Raises
    ------
    InputError
        If there is none of that name; the message suggests near ones.
    """
    if name not in _REGISTRY:
        near = get_close_matches(name, _REGISTRY, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_REGISTRY)}."
        raise InputError(f"There is no score named `{name}`; {hint}")
    return _REGISTRY[name]


def compute(
    name: str,
    *,
    logits: ArrayLike,
    features: ArrayLike | None = None,
    bank: PrototypeBank | None = None,
    support_features: ArrayLike | None = None,
    support_labels: ArrayLike | None = None,
    support_logits: ArrayLike | None = None,
    image_embeddings: ArrayLike | None = None,
    text_embeddings: ArrayLike | None = None,
    support_image_embeddings: ArrayLike | None = None,
    **parameters: Any,
) -> ScoreResult:
    """Compute a score by name from arrays alone.

    Parameters
    ----------
    name
        One of `names()`.
    logits
        `(n, C)` zero-shot logits, scaled.
    features
        `(n, d)` un-normalised features of the vision encoder.
    bank
        Prototypes; made from the shots where they are passed instead.
    support_features, support_labels, support_logits
        The shots: `(m, d)`, `(m,)`, `(m, C)`.
    image_embeddings, text_embeddings, support_image_embeddings
        The VLM's own space: `(n, e)`, `(C, e)`, `(m, e)`.
    **parameters
        The score's own parameters, such as `weight` of `trustvlm`.

    Returns
    -------
    ScoreResult
        `prediction` `(n,)` int64 and `confidence` `(n,)` float64, higher is more trusted.

    Raises
    ------
    InputError
        For an unknown score or parameter, or arrays that do not fit together.
    EvidenceMissingError
        If the score needs evidence that was not passed.

    Examples
    --------
    >>> bank = PrototypeBank().fit([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    >>> v = compute("trustvlm", logits=[[0.0, 0.0]], features=[[1.0, 0.0]], bank=bank)
    >>> v.prediction, v.confidence
    (array([0]), array([1.5]))
    """
    evidence = Evidence.of(
        logits=logits,
        features=features,
        bank=bank,
        support_features=support_features,
        support_labels=support_labels,
        support_logits=support_logits,
        image_embeddings=image_embeddings,
        text_embeddings=text_embeddings,
        support_image_embeddings=support_image_embeddings,
    )
    return apply(name, evidence, **parameters)


def apply(name: str, evidence: Evidence, **parameters: Any) -> ScoreResult:
    """Compute a score by name from checked evidence, in blocks of bounded memory.

    Raises
    ------
    InputError, EvidenceMissingError
        As `compute`.
    """
    score = get(name)
    unknown = sorted(set(parameters) - set(score.parameters))
    if unknown:
        raise InputError(
            f"The score `{name}` has no parameter {', '.join(f'`{p}`' for p in unknown)}; "
            f"it has {', '.join(f'`{p}`' for p in score.parameters) or 'none'}."
        )
    evidence.demand(score.needs, by=name)
    settings = {**score.parameters, **parameters}
    learned = () if score.fit is None else (score.fit(evidence, **_taken(score.fit, settings)),)
    taken = _taken(score.function, settings)
    blocks = [evidence] if score.whole_batch else evidence.blocks()
    results = [score.function(block, *learned, **taken) for block in blocks]
    if not results:
        return ScoreResult(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
    return ScoreResult(
        prediction=np.concatenate([result.prediction for result in results]).astype(np.int64),
        confidence=np.concatenate([result.confidence for result in results]).astype(np.float64),
    )


def _keywords(function: Callable[..., Any] | None) -> dict[str, Any]:
    """Keyword-only parameters and their defaults."""
    if function is None:
        return {}
    signature = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}


def _taken(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in _keywords(function)}
