"""The registry: every confidence score under its name, with what it needs and where it is from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.plugins import Registry
from trustvlm.scores.evidence import EVIDENCE_NAMES


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


def joined(results: Sequence[ScoreResult]) -> ScoreResult:
    """Put the results of successive blocks of images together."""
    if not results:
        return ScoreResult(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
    return ScoreResult(
        prediction=np.concatenate([r.prediction for r in results]).astype(np.int64),
        confidence=np.concatenate([r.confidence for r in results]).astype(np.float64),
    )


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


_REGISTRY: Registry[Score] = Registry("score")


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
    >>> names()["constant"]
    ('logits',)
    >>> unregister("constant")
    """
    unknown = set(needs) - set(EVIDENCE_NAMES)
    if unknown:
        raise InputError(f"`needs` of score `{name}` names no evidence: {sorted(unknown)}.")

    def decorate(function: Callable[..., ScoreResult]) -> Callable[..., ScoreResult]:
        score = Score(
            name=name,
            function=function,
            needs=needs,
            formula=formula,
            source=source,
            complexity=complexity,
            corrects=corrects,
            whole_batch=whole_batch,
            fit=fit,
            parameters={**keywords(fit), **keywords(function)},
        )
        _REGISTRY.add(name, score)
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


def keywords(function: Callable[..., Any] | None) -> dict[str, Any]:
    """Return the keyword-only parameters of a function, with their defaults.

    Examples
    --------
    >>> keywords(sorted)
    {'key': None, 'reverse': False}
    """
    if function is None:
        return {}
    signature = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}
