"""Scores by name: each is registered with what it needs and where it is from, and computed.

To compute a score is to learn from the shots once, then to score images in blocks.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.plugins import (
    Registry,
    describe_failures,
    differs,
    from_where,
    how_to_load,
    is_own,
    load_installed,
    origin,
    plugin_errors,
)
from trustvlm.scores.arrays import as_matrix, rows_and_lengths, unit_rows
from trustvlm.scores.evidence import (
    EVIDENCE_NAMES,
    LINKS,
    OF_TEXT,
    PER_IMAGE,
    Evidence,
    compare_as_stored,
)
from trustvlm.scores.prototypes import PrototypeBank
from trustvlm.text import did_you_mean

# The registry of scores.


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
class Packed:
    """What a score has learned, as arrays and plain JSON values."""

    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Storage:
    """How what a score learns is kept in an artefact, so that it is not learned at every load.

    Attributes
    ----------
    name
        Of what is learned; scores that learn the same share it.
    version
        Other versions are not read but learned anew.
    pack
        Reduces what was learned to arrays and values. What the evidence on the shots has anyway
        need not be among them.
    unpack
        Puts it together again from the evidence on the shots and a `Packed`; raises `InputError`
        or `KeyError` where that does not fit.
    """

    name: str
    version: int
    pack: Callable[[Any], Packed]
    unpack: Callable[[Evidence, Packed], Any]

    def key(self, parameters: Mapping[str, Any]) -> str:
        """Return the name by which `Evidence.learned` keeps what was learned with parameters."""
        return " ".join([self.name, *(f"{k}={parameters[k]!r}" for k in sorted(parameters))])


@dataclass(frozen=True)
class Score:
    """A registered score: its function and the facts that tables and docs are rendered from.

    Attributes
    ----------
    name, formula, source
        The registered name, the formula in words of method.md's notation, the paper.
    needs
        Names of the pieces of `Evidence` that must be there.
    optional
        Names of those that are used as well where they are there.
    corrects
        True if the prediction may differ from the VLM's.
    parameters
        Keyword parameters and their defaults.
    fit
        Learns from the shots once, before the images are scored in blocks; None if there is
        nothing to learn.
    whole_batch
        True if a verdict depends on the other images of the batch, so blocks are not allowed.
    adapts
        True if the score learns once from images of the target (`target_logits` and the like) where
        the evidence has them, so that verdicts do not depend on the batch.
    log_odds
        True if the confidence estimates the log-odds that the prediction is right, so that its
        sigmoid is a probability.
    revision
        Raised when the score's values change, so that calibrations of the former are refused.
    by_shot
        True if every image may be compared with every shot at once, so that blocks are smaller.
    judges_given
        True if the confidence in a label from elsewhere can be asked for.
    without_text
        True if that needs no text, so that there may be no logits.
    storage
        How what `fit` learns is stored; None if it is learned anew at every load.
    """

    name: str
    function: Callable[..., ScoreResult]
    needs: tuple[str, ...]
    formula: str
    source: str
    complexity: str
    optional: tuple[str, ...] = ()
    corrects: bool = False
    whole_batch: bool = False
    adapts: bool = False
    log_odds: bool = False
    revision: int = 1
    by_shot: bool = True
    judges_given: bool = False
    without_text: bool = False
    storage: Storage | None = None
    fit: Callable[..., Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    def needs_of(self, evidence: Evidence) -> tuple[str, ...]:
        """Return what the score needs of this evidence: of given labels, maybe no text.

        Raises
        ------
        InputError
            If labels are given and the score cannot judge them, or makes no use of their
            probabilities.
        """
        if evidence.given_labels is not None and not self.judges_given:
            raise InputError(
                f"The score `{self.name}` judges its own label and cannot judge given ones: "
                f"use {', '.join(judging_given(evidence.has_text))}."
            )
        if evidence.label_confidence is not None and "label_confidence" not in self.optional:
            raise InputError(
                f"The score `{self.name}` makes no use of `label_confidence`: use auto, or leave "
                "it out."
            )
        if self.without_text and not evidence.has_text:
            return tuple(need for need in self.needs if need not in OF_TEXT)
        return self.needs

    def reads_whole_batch(self, evidence: Evidence) -> bool:
        """Whether a verdict depends on the other images of the batch, given the shots' evidence."""
        return self.whole_batch and not (self.adapts and evidence.has("target_logits"))

    @property
    def sees(self) -> dict[str, str]:
        """What a verdict depends on: `yes`, `if passed` or `no` of each source but the text.

        Of the text every score sees the zero-shot logits, and some the embeddings of the class
        names too. The VLM's image space is that in which images are compared with images; the
        vision encoder is the second one, unless the VLM's own is passed as it.

        Examples
        --------
        >>> get("msp").sees
        {'text': 'logits', 'shots': 'no', "VLM's image space": 'no', 'vision encoder': 'no', \
'whole batch': 'no'}
        """

        def of(*pieces: str) -> str:
            if any(piece in self.needs for piece in pieces):
                return "yes"
            return "if passed" if any(piece in self.optional for piece in pieces) else "no"

        return {
            "text": "logits" if of("text_embeddings") == "no" else "logits, embeddings",
            "shots": of(*OF_SHOTS),
            "VLM's image space": of("image_embeddings"),
            "vision encoder": of("features"),
            "whole batch": "yes" if self.whole_batch else "no",
        }

    @property
    def sight(self) -> str:
        """`sees` and `corrects` as a sentence.

        Examples
        --------
        >>> get("trustvlm_star").sight
        'Sees text (logits), shots, vision encoder; may change the label.'
        """
        sees = self.sees
        seen = [f"text ({sees.pop('text')})"]
        seen += [f"{k} ({v})" if v == "if passed" else k for k, v in sees.items() if v != "no"]
        label = "may change the label" if self.corrects else "keeps the VLM's label"
        return f"Sees {', '.join(seen)}; {label}."


# Pieces of evidence that are of the shots.
OF_SHOTS = ("bank", *(name for name in EVIDENCE_NAMES if name.startswith("support_")))

_REGISTRY: Registry[Score] = Registry("score", lambda score: score.function)


def register(
    name: str,
    *,
    needs: tuple[str, ...] = ("logits",),
    formula: str,
    source: str,
    complexity: str = "O(nC)",
    optional: tuple[str, ...] = (),
    corrects: bool = False,
    whole_batch: bool = False,
    adapts: bool = False,
    log_odds: bool = False,
    revision: int = 1,
    by_shot: bool = True,
    judges_given: bool = False,
    without_text: bool = False,
    storage: Storage | None = None,
    fit: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., ScoreResult]], Callable[..., ScoreResult]]:
    """Register a score: a function of `Evidence` (and of what `fit` learned) and keywords.

    `fit(evidence, **keywords)` learns from the shots once; what it returns is the second argument
    of the function. The score's parameters are the keyword-only ones of both. `optional`,
    `corrects`, `whole_batch`, `adapts`, `log_odds`, `revision`, `by_shot`, `judges_given`,
    `without_text` and `storage` are facts about it; see `Score`. What it sees is added to the
    documentation of the function.

    Raises
    ------
    InputError
        If the name is taken, or `needs` or `optional` names no piece of `Evidence`.

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
    for which, pieces in (("needs", needs), ("optional", optional)):
        if unknown := set(pieces) - set(EVIDENCE_NAMES):
            raise InputError(f"`{which}` of score `{name}` names no evidence: {sorted(unknown)}.")

    def decorate(function: Callable[..., ScoreResult]) -> Callable[..., ScoreResult]:
        score = Score(
            name=name,
            function=function,
            needs=needs,
            formula=formula,
            source=source,
            complexity=complexity,
            optional=optional,
            corrects=corrects,
            whole_batch=whole_batch,
            adapts=adapts,
            log_odds=log_odds,
            revision=revision,
            by_shot=by_shot and "support_features" in needs,
            judges_given=judges_given,
            without_text=without_text,
            storage=storage,
            fit=fit,
            parameters={**keywords(fit), **keywords(function)},
        )
        _REGISTRY.add(name, score)
        function.__doc__ = f"{inspect.getdoc(function) or ''}\n\n{score.sight}"
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


def judging_given(text: bool = True) -> list[str]:
    """Return the scores that can judge labels from elsewhere, with or without text.

    Examples
    --------
    >>> "auto" in judging_given(text=False), "msp" in judging_given(text=False)
    (True, False)
    """
    return [
        name
        for name, score in _REGISTRY.items()
        if score.judges_given and (text or score.without_text)
    ]


def get(name: str) -> Score:
    """Return a registered score; for a name that is not, installed packages are loaded.

    Raises
    ------
    InputError
        If there is none of that name; the message suggests near ones.
    """
    if name not in _REGISTRY:
        load_installed()
    if name not in _REGISTRY:
        canonical = canonical_name(name)
        hint = (
            f"in print that is `{canonical}`."
            if canonical != name
            else did_you_mean(name, _REGISTRY)
        )
        if of_encoder := _OF_ENCODER.fullmatch(_bare(name)):
            score = "trustvlm_star" if "star" in of_encoder[0] else "trustvlm"
            hint = f"it is `{score}` with the vision encoder {_ENCODERS[of_encoder[1]]}."
        hint = hint or f"known: {', '.join(_REGISTRY)}."
        raise InputError(f"There is no score named `{name}`; {hint}{describe_failures()}")
    return _REGISTRY[name]


# Names in print that differ from the registered ones in more than case and punctuation.
_IN_PRINT = {
    "doctor": "doctor_alpha",
    "maximumsoftmaxprobability": "msp",
    "maxsoftmaxprobability": "msp",
    "negativeentropy": "entropy",
    "knearestneighbours": "knn",
    "mahalanobisdistance": "mahalanobis",
    "tipadaptertrainingfree": "tip_adapter",
    "maximumconceptmatching": "mcm",
    "gaussiandiscriminantanalysis": "gda",
}
# In print the second encoder is part of some names.
_OF_ENCODER = re.compile("trustvlm(?:star)?([dm])(?:star)?")
_ENCODERS = {"d": "dinov2-base", "m": "moco-v2-r50:<file>"}
# What a page in print has for the star is copied from it as one of several signs.
_SIGNS = str.maketrans({**dict.fromkeys("*∗⁎⋆★☆＊", "star"), "α": "alpha", "β": "beta"})


def canonical_name(name: str) -> str:
    """Return the registered name of a score that is called as papers call it.

    Case and punctuation do not matter, `*`, also as printed pages have it, is `_star`, and DOCTOR
    alone is its alpha. What is registered, and what is not known, stays as it is.

    Examples
    --------
    >>> [canonical_name(name) for name in ("TrustVLM*", "TrustVLM*(F)", "MSP", "Doctor", "mps")]
    ['trustvlm_star', 'trustvlm_star_f', 'msp', 'doctor_alpha', 'mps']
    """
    if name in _REGISTRY:
        return name
    form = _bare(name)
    candidates = [registered for registered in _REGISTRY if _bare(registered) == form]
    if len(candidates) == 1:
        return candidates[0]
    return _IN_PRINT[form] if _IN_PRINT.get(form) in _REGISTRY else name


def _bare(name: str) -> str:
    spelt = name.lower().translate(_SIGNS)
    # A sign that is not known stays: without it `TrustVLM*` would be another score.
    return re.sub(r"[\s!-/:-@\[-`{-~–—‐‑−†‡]", "", spelt)


def check_plugin(name: str, plugin: Mapping[str, str] | None) -> None:
    """Check that the score of a saved model is here, in the version that it was saved with.

    Parameters
    ----------
    name
        Of the score.
    plugin
        Its `trustvlm.plugins.origin` when the model was saved; None or {} for the package's own,
        and in models that were saved before that was recorded.

    Raises
    ------
    InputError
        If there is no such score.

    Warns
    -----
    TrustVLMWarning
        If it comes from another file, or another version of it.
    """
    if name not in _REGISTRY:
        load_installed()
    if name not in _REGISTRY:
        provider = plugin or {"name": "the file that registers it", "sha256": ""}
        brings = f"which {plugin['name']} registers" if plugin else "which a plugin registers"
        raise InputError(
            f"The model needs the score `{name}`, {brings}: {how_to_load(provider)}."
            f"{describe_failures()}"
        )
    if plugin and differs(plugin, origin(get(name).function)):
        warnings.warn(
            f"The score `{name}` is not the version of {plugin.get('package', plugin['name'])} "
            "with which the model was saved: calibrate it again if it changed.",
            TrustVLMWarning,
            stacklevel=2,
        )


@cache
def keywords(function: Callable[..., Any] | None) -> dict[str, Any]:
    """Return the keyword-only parameters of a function, with their defaults; not to be changed.

    Examples
    --------
    >>> keywords(sorted)
    {'key': None, 'reverse': False}
    """
    if function is None:
        return {}
    signature = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}


# Computing a registered score.


@dataclass(frozen=True)
class PreparedScore:
    """A score that has learned what it learns from the shots; call it with evidence.

    Attributes
    ----------
    score
        The registered score.
    parameters
        All its parameters, defaults included.
    learned
        What its `fit` returned; None if it has nothing to learn.
    whole_batch
        Whether a verdict depends on the other images that are scored with it.
    """

    score: Score
    parameters: Mapping[str, Any]
    learned: Any
    whole_batch: bool = False

    def __call__(self, evidence: Evidence) -> ScoreResult:
        """Score n images, in blocks of bounded memory."""
        evidence.demand(self.score.needs_of(evidence), by=self.score.name)
        learned = () if self.score.fit is None else (self.learned,)
        settings = {name: self.parameters[name] for name in keywords(self.score.function)}
        blocks: Iterable[Evidence] = [evidence]
        if not self.whole_batch:
            blocks = evidence.blocks(by_shot=self.score.by_shot)
        return joined([self._score(block, learned, settings) for block in blocks])

    def _score(
        self, block: Evidence, learned: tuple[Any, ...], settings: Mapping[str, Any]
    ) -> ScoreResult:
        function = self.score.function
        if is_own(function):
            return function(block, *learned, **settings)
        name = f"score `{self.score.name}`{from_where(function)}"
        with plugin_errors(f"The {name} fails"):
            result = function(block.read_only(), *learned, **settings)
        return _checked(result, block, f"the {name}")


def _checked(result: Any, block: Evidence, name: str) -> ScoreResult:
    """Return what a score from outside the package gives, or say what is wrong with it."""
    n, n_classes = block.n, block.n_classes
    if not isinstance(result, ScoreResult):
        raise InputError(
            f"Expected {name} to return a ScoreResult, but got a {type(result).__name__}."
        )
    prediction, confidence = np.asarray(result.prediction), np.asarray(result.confidence)
    for array, kinds, what in (
        (prediction, "iu", "class indices as `prediction`"),
        (confidence, "fiu", "real numbers as `confidence`"),
    ):
        if array.shape != (n,) or array.dtype.kind not in kinds:
            raise InputError(
                f"Expected {name} to return {n} {what}, one an image, but got dtype {array.dtype} "
                f"of shape {array.shape}."
            )
    if n and not 0 <= prediction.min() <= prediction.max() < n_classes:
        raise InputError(
            f"Expected {name} to predict classes in 0..{n_classes - 1}, but got "
            f"{prediction.min()} to {prediction.max()}."
        )
    if not (finite := np.isfinite(confidence)).all():
        raise InputError(
            f"Expected {name} to give finite confidences, but {int((~finite).sum())} of {n} are "
            f"NaN or infinite, the first of image {int(np.flatnonzero(~finite)[0])}."
        )
    return ScoreResult(prediction.astype(np.int64), confidence.astype(np.float64))


def score_together(
    prepared: Mapping[str, PreparedScore], evidence: Evidence
) -> dict[str, ScoreResult]:
    """Score the same images by several scores, block by block, so that they share their work.

    Parameters
    ----------
    prepared
        By any names; those that learned from the same evidence share the most.
    evidence
        Of n images.

    Returns
    -------
    dict of str to ScoreResult
        What each score alone returns for the evidence.

    Examples
    --------
    >>> evidence = Evidence.of(logits=[[0.0, 2.0]])
    >>> results = score_together({"text": prepare("msp", evidence)}, evidence)
    >>> results["text"].prediction
    array([1])
    """
    whole = {name for name, score in prepared.items() if score.whole_batch}
    parts: dict[str, list[ScoreResult]] = {name: [] for name in prepared}
    for name in whole:
        parts[name].append(prepared[name](evidence))
    by_image = [n for n, s in prepared.items() if n not in whole and not s.score.by_shot]
    by_shot = [n for n, s in prepared.items() if n not in whole and s.score.by_shot]
    for block in evidence.blocks(by_shot=False):
        for name in by_image:
            parts[name].append(prepared[name](block))
        # What the others share, such as cosines with all shots, is too large for all images here.
        for part in block.blocks() if by_shot else ():
            for name in by_shot:
                parts[name].append(prepared[name](part))
    return {name: joined(results) for name, results in parts.items()}


def check_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Raise `InputError` unless the score exists and takes all these parameters and values."""
    accepted = get(name).parameters
    unknown = sorted(set(parameters) - set(accepted))
    if unknown:
        others = [n for n, other in _REGISTRY.items() if set(unknown) <= set(other.parameters)]
        remedy = f" Choose one of the scores that do: {', '.join(others)}." if others else ""
        raise InputError(
            f"The score `{name}` has no parameter {', '.join(f'`{p}`' for p in unknown)}; "
            f"it has {', '.join(f'`{p}`' for p in accepted) or 'none'}.{remedy}"
        )
    for parameter, value in parameters.items():
        default = accepted[parameter]
        if default in LINKS and value not in LINKS:
            raise InputError(
                f"Expected `{parameter}` to be {' or '.join(LINKS)}, but the score `{name}` got "
                f"{value!r}."
            )
        if isinstance(default, bool) or not isinstance(default, int | float):
            continue
        whole = isinstance(default, int)
        kind = numbers.Integral if whole else numbers.Real
        what = "a whole number" if whole else "a finite number"
        fits = not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)
        if fits and parameter in _ABOVE_0:
            fits, what = value > 0, "above 0"
        if not fits:
            raise InputError(
                f"Expected `{parameter}` to be {what}, but the score `{name}` got {value!r}."
            )


# Parameters that divide, or scale what is exponentiated.
_ABOVE_0 = ("temperature", "logit_scale")


def prepare(name: str, evidence: Evidence, **parameters: Any) -> PreparedScore:
    """Learn from the shots in the evidence; its images are not looked at.

    Raises
    ------
    InputError, EvidenceMissingError
        As `compute`.

    Examples
    --------
    >>> evidence = Evidence.of(logits=[[0.0, 2.0]])
    >>> prepare("msp", evidence)(evidence).confidence.round(3)
    array([0.881])
    """
    check_parameters(name, parameters)
    score = get(name)
    evidence.demand([need for need in score.needs_of(evidence) if need not in PER_IMAGE], by=name)
    settings = {**score.parameters, **parameters}
    learned, fit = None, score.fit
    if fit is not None:
        given = {name: settings[name] for name in keywords(fit)}
        failure = f"The score `{name}`{from_where(fit)} fails"
        own = is_own(fit)
        shots = evidence if own else evidence.read_only()
        with nullcontext() if own else plugin_errors(failure):
            if score.storage is None:
                learned = fit(shots, **given)
            else:
                learned = shots.learned(score.storage.key(given), lambda: fit(shots, **given))
    return PreparedScore(score, settings, learned, score.reads_whole_batch(evidence))


def apply(name: str, evidence: Evidence, **parameters: Any) -> ScoreResult:
    """Compute a score by name from checked evidence.

    Raises
    ------
    InputError, EvidenceMissingError
        As `compute`.
    """
    return prepare(name, evidence, **parameters)(evidence)


def compute(
    name: str,
    *,
    logits: ArrayLike | None = None,
    features: ArrayLike | None = None,
    bank: PrototypeBank | None = None,
    support_features: ArrayLike | None = None,
    support_labels: ArrayLike | None = None,
    support_logits: ArrayLike | None = None,
    image_embeddings: ArrayLike | None = None,
    text_embeddings: ArrayLike | None = None,
    support_image_embeddings: ArrayLike | None = None,
    target_logits: ArrayLike | None = None,
    target_features: ArrayLike | None = None,
    target_image_embeddings: ArrayLike | None = None,
    given_labels: ArrayLike | None = None,
    label_confidence: ArrayLike | None = None,
    logit_bias: float | None = None,
    **parameters: Any,
) -> ScoreResult:
    """Compute a score by name from arrays alone.

    Parameters
    ----------
    name
        One of `names()`.
    logits
        `(n, C)` zero-shot logits, scaled. None, and no `support_logits`, where there is no VLM:
        only given labels can be judged then.
    features
        `(n, d)` un-normalised features of the vision encoder.
    bank
        Prototypes; made from the shots where they are passed instead.
    support_features, support_labels, support_logits
        The shots: `(m, d)`, `(m,)`, `(m, C)`.
    image_embeddings, text_embeddings, support_image_embeddings
        The VLM's own space: `(n, e)`, `(C, e)`, `(m, e)`.
    target_logits, target_features, target_image_embeddings
        t unlabelled images that `auto_adapted` learns from once: `(t, C)`, `(t, d)`, `(t, e)`.
    given_labels, label_confidence
        `(n,)` class indices of labels from elsewhere, which are judged instead of the VLM's, and
        `(n,)` probabilities that came with them, NaN where there is none.
    logit_bias
        Of a SigLIP model, for the parameter `link="sigmoid"` of `msp`, `margin` and `trustvlm`.
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

    A label from elsewhere, without any text:

    >>> compute("image_similarity", features=[[1.0, 0.0]], bank=bank, given_labels=[1]).confidence
    array([0.])
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
        target_logits=target_logits,
        target_features=target_features,
        target_image_embeddings=target_image_embeddings,
        given_labels=given_labels,
        label_confidence=label_confidence,
        logit_bias=logit_bias,
    )
    return apply(name, evidence, **parameters)


# Scores of any number of images from their stored embeddings, whose logits are never all there.

# How an executor's `map` and the builtin one are called here.
Map = Callable[[Callable[[slice], ScoreResult], Iterable[slice]], Iterable[ScoreResult]]


def compute_embedded(
    name: str,
    *,
    image_embeddings: NDArray[Any],
    text_embeddings: ArrayLike,
    logit_scale: float = 100.0,
    features: NDArray[Any] | None = None,
    bank: PrototypeBank | None = None,
    support_features: ArrayLike | None = None,
    support_labels: ArrayLike | None = None,
    support_image_embeddings: ArrayLike | None = None,
    map_blocks: Map = map,
    **parameters: Any,
) -> ScoreResult:
    """Compute a score from embeddings, block by block, in memory that does not grow with n x C.

    Parameters
    ----------
    name
        One of `names()` that scores each image by itself.
    image_embeddings, text_embeddings
        `(n, e)` and `(C, e)` of the VLM, any length per row. The first may be a memory map.
    logit_scale
        The model's learned scale (100 for CLIP).
    features
        `(n, d)` of the vision encoder; may be a memory map.
    bank, support_features, support_labels, support_image_embeddings
        As of `compute`.
    map_blocks
        Applies the work to the blocks: `ThreadPoolExecutor(k).map` uses k cores, best with linear
        algebra kept to one thread each.
    **parameters
        The score's own.

    Returns
    -------
    ScoreResult
        `prediction` `(n,)` int64 and `confidence` `(n,)` float64. Logits are computed in the
        precision of `image_embeddings` and cosines in that of `features`, at least float32.

    Raises
    ------
    InputError
        As `compute`; or if the score needs all images at once.
    EvidenceMissingError
        If the score needs evidence that was not passed.

    Examples
    --------
    >>> v = compute_embedded("msp", image_embeddings=np.eye(2), text_embeddings=np.eye(2))
    >>> v.prediction, v.confidence
    (array([0, 1]), array([1., 1.]))
    """
    if get(name).whole_batch:
        raise InputError(
            f"The score `{name}` reads all images at once, so it cannot be computed block by "
            "block: use scores.compute."
        )
    texts = as_matrix(text_embeddings, "text_embeddings", nonzero=True)
    if image_embeddings.ndim != 2 or image_embeddings.shape[1] != texts.shape[1]:
        raise InputError(
            f"Expected `image_embeddings` to have {texts.shape[1]} columns like "
            f"`text_embeddings`, but got shape {image_embeddings.shape}."
        )
    n = len(image_embeddings)
    if features is not None and len(features) != n:
        raise InputError(
            f"Expected `features` to have {n} rows like `image_embeddings`, "
            f"but got {len(features)}."
        )
    precision = np.result_type(image_embeddings.dtype, np.float32)
    columns = np.asarray(logit_scale * unit_rows(texts).T, dtype=precision)

    def logits(rows: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
        directions = np.divide(rows, lengths[:, None], dtype=precision)
        table: NDArray[Any] = directions @ columns
        return table

    shots = None
    if support_image_embeddings is not None:
        shots = rows_and_lengths(support_image_embeddings, "support_image_embeddings")
    without_images = Evidence.of(
        logits=np.empty((0, len(texts))),
        features=None if features is None else np.asarray(features[:0]),
        bank=bank,
        support_features=support_features,
        support_labels=support_labels,
        support_logits=None if shots is None else logits(*shots),
        image_embeddings=np.asarray(image_embeddings[:0]),
        text_embeddings=texts,
        support_image_embeddings=None if shots is None else shots[0],
    )
    prepared = prepare(name, without_images, **parameters)
    stored = None
    if features is not None and without_images.bank is not None and "bank" in get(name).needs:
        alike = np.result_type(features.dtype, np.float32) if features.dtype.kind == "f" else float
        stored = without_images.bank.prototypes_.astype(alike)

    def score(rows: slice) -> ScoreResult:
        where = f"[{rows.start}:{rows.stop}]"
        images = rows_and_lengths(image_embeddings[rows], f"image_embeddings{where}")
        # Checked above: with_images would look at everything again.
        evidence = replace(without_images, logits=logits(*images), image_embeddings=images[0])
        if features is not None:
            seen, lengths = rows_and_lengths(features[rows], f"features{where}")
            evidence = replace(evidence, features=seen)
            if stored is not None:
                evidence = compare_as_stored(evidence, lengths, stored)
        return prepared(evidence)

    return joined(list(map_blocks(score, without_images.slices(n, by_shot=get(name).by_shot))))
