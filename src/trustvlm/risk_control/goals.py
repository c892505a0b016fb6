"""What the user wants of decisions, and the rule that accepts or lets a person review."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from trustvlm.exceptions import InputError
from trustvlm.metrics.intervals import proportion_lower_bound, risk_upper_bound
from trustvlm.risk_control.certify import DEFAULT_METHOD, Certificate, among, certify
from trustvlm.risk_control.conformal_selection import ConformalSelection, select_conformal
from trustvlm.risk_control.costs import CostThreshold, cheapest
from trustvlm.risk_control.per_class import ClassCertificates, certify_per_class
from trustvlm.risk_control.tests import check_fraction
from trustvlm.scores.compute import ScoreResult

# The smallest risk that can be certified while accepting at least a given share of new images.


def certify_coverage(
    confidence: ArrayLike,
    correct: ArrayLike,
    coverage: float = 0.8,
    confidence_level: float = 0.95,
    *,
    eligible: ArrayLike | None = None,
) -> Certificate:
    """Find the threshold that accepts at least a share of new images, and bound its risk.

    The threshold is the strictest that accepts the wanted share of new images with probability
    `confidence_level`. It depends on the confidences alone, so that a single exact test bounds its
    risk, with the same probability.

    Parameters
    ----------
    confidence, correct, confidence_level, eligible
        As in `certify`, with the same assumption.
    coverage
        Wanted share, in (0, 1).

    Returns
    -------
    Certificate
        `coverage_bound` is at least `coverage`, `risk_bound` the risk that is not exceeded. NaN
        thresholds where there are too few images to accept so many: `n_needed` says how many more.

    Notes
    -----
    Accepting the k most trusted of n accepts a share of new ones that is distributed as
    Beta(k, n + 1 - k). What is accepted is strictly above image k + 1, of which the k images are
    independent draws: Clopper & Pearson 1934. Image k may tie with the next ones, all of which are
    accepted then: the bound is the larger of those at k, the wrong ones first, and with all of
    them. If every image is accepted, it is the larger of those without and with the last.

    Examples
    --------
    >>> confidence = np.linspace(1, 0, 1000)
    >>> t = certify_coverage(confidence, confidence > 0.3, coverage=0.6)
    >>> t.coverage, round(t.coverage_bound, 3), round(t.risk_bound, 4)
    (0.626, 0.6, 0.0048)
    """
    check_fraction(coverage, "coverage")
    check_fraction(confidence_level, "confidence_level")
    n, accepting = among(confidence, correct, eligible)
    counts = np.arange(1, accepting.n + 1)
    enough = proportion_lower_bound(counts, n, confidence_level) >= coverage
    if not enough.any() or not counts[enough][0] > 1:
        # All of m images must do: m with confidence ** (1 / m) >= coverage.
        wanted = math.ceil(math.log1p(-confidence_level) / math.log(coverage) - 1e-9)
        return Certificate.none(
            n, max(1.0, wanted - n), math.nan, confidence_level, "coverage", coverage
        )
    k = int(counts[enough][0])
    accepted = k + int(np.flatnonzero(accepting.reachable[k:])[0])
    evidence = np.array([min(k, accepting.n - 1), accepted])
    bounds = risk_upper_bound(accepting.errors[evidence], evidence, confidence_level)
    return Certificate(
        threshold=float(accepting.thresholds(accepted)),
        risk_bound=float(bounds.max()),
        confidence_level=confidence_level,
        coverage=accepted / n,
        coverage_bound=float(proportion_lower_bound(k, n, confidence_level)),
        n=n,
        accepted=accepted,
        errors=int(accepting.errors[accepted]),
        n_needed=0.0,
        risk=math.nan,
        method="coverage",
        wanted_coverage=coverage,
    )


# What every guarantee assumes, and what to do as long as no threshold has been certified.

_SAME_KIND = (
    "This holds if the calibration images are drawn independently and like the images to come: "
    "the same kinds of pictures, from the same sources, in the same proportions."
)

UNCALIBRATED_RULE = (
    "uncalibrated: accept if the image resembles the example images of the predicted class more "
    "than those of any other class, and no less than example images do, otherwise review; no error "
    "rate is guaranteed"
)
"""What is said where no threshold was calibrated."""


def looks_statement(looks: int) -> str:
    """Say what several calibrations on the same images cost, from their number.

    Examples
    --------
    >>> looks_statement(2).partition(",")[0]
    '2 calibrations have used labels of these images'
    """
    return (
        f"{looks} calibrations have used labels of these images, and each guarantee is for one: "
        f"the probability that any of them fails is up to {looks} times as large, and larger where "
        "one was chosen by what another showed."
    )


def accept_on_agreement(
    prediction: NDArray[np.int64],
    nearest: NDArray[np.int64],
    unlike: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Accept where text and image evidence name the same class.

    Parameters
    ----------
    prediction
        `(n,)` predicted class indices.
    nearest
        `(n,)` class of the most similar prototype, -1 where there are no prototypes.
    unlike
        `(n,)` whether an image is out-of-distribution; these are never accepted.

    Returns
    -------
    ndarray
        `(n,)` bool. A class without example images is never accepted: nothing verifies it.

    Examples
    --------
    >>> accept_on_agreement(np.array([0, 1, 2]), np.array([0, 2, -1]))
    array([ True, False, False])
    """
    agrees: NDArray[np.bool_] = prediction == nearest
    return agrees if unlike is None else agrees & ~unlike


# What decides between accept and review: any of the certified rules, behind one face.


class Rule(Protocol):
    """A threshold for every verdict, and what it guarantees."""

    @property
    def certified(self) -> bool:
        """Whether anything is ever accepted."""
        ...

    @property
    def coverage(self) -> float:
        """Share of the calibration set that is accepted."""
        ...

    def thresholds(self, prediction: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(n,)` the threshold that each new verdict has to reach; NaN where there is none."""
        ...

    def statement(self) -> str:
        """Say it in words."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ...


def rule_from_dict(stored: Mapping[str, Any]) -> Rule:
    """Restore what `to_dict` of a rule gave.

    Raises
    ------
    InputError
        If there is no such kind of rule.
    KeyError, TypeError, ValueError
        If something is missing, no number where one has to be, or beyond its range.

    Examples
    --------
    >>> rule_from_dict(Certificate.none(5, 55.0, 0.05, 0.95, "fixed_sequence").to_dict()).certified
    False
    """
    kinds: dict[str, Any] = {
        "risk": Certificate,
        "coverage": Certificate,
        "risk_per_class": ClassCertificates,
        "cost": CostThreshold,
        "expectation": ConformalSelection,
    }
    if stored["kind"] not in kinds:
        raise InputError(f"There is no rule of the kind {stored['kind']!r}.")
    rule = kinds[stored["kind"]].from_dict(stored)
    for part in (rule, *getattr(rule, "certificates", ())):
        _check_ranges(part)
    restored: Rule = rule
    return restored


# Probabilities and shares, each in [0, 1]; 0 and 1 ask for nothing that could be certified.
_ASKED = ("risk", "confidence_level")
_SHARES = ("risk_bound", "coverage", "coverage_bound", "wanted_coverage")


def _check_ranges(part: Any) -> None:
    """Raise unless the numbers of a rule are such as calibrating can give."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    for field in fields(part):
        value = values[field.name]
        wrong = isinstance(value, bool) or not isinstance(value, int | float)
        if field.type == "int":
            wrong = wrong or not isinstance(value, int) or value < 0
        elif field.type == "float":
            # NaN says that there is none; infinitely many images are needed where none help.
            wrong = wrong or (math.isinf(value) and field.name != "n_needed")
            wrong = wrong or (field.name in _ASKED and (value <= 0 or value >= 1))
            wrong = wrong or (field.name in _SHARES and (value < 0 or value > 1))
            wrong = wrong or (field.name not in ("threshold", *_ASKED) and value < 0)
        elif field.type == "bool":
            wrong = not isinstance(value, bool)
        else:
            continue
        if wrong:
            raise TypeError(f"`{field.name}`, which is {value!r}")
    if isinstance(part, ClassCertificates):
        return
    if not values["errors"] <= values["accepted"] <= values["n"]:
        raise ValueError("`accepted`, which fits neither `errors` nor `n`")
    if not math.isnan(part.threshold) and not part.accepted:
        raise ValueError("`threshold`, which no calibration image reaches")
    if isinstance(part, Certificate):
        check_fraction(part.confidence_level, "confidence_level")
        if part.certified and math.isnan(part.risk_bound):
            raise ValueError("`risk_bound`, without which nothing is certified")
    elif isinstance(part, ConformalSelection):
        check_fraction(part.risk, "risk")
        if not all(map(math.isfinite, part.wrong)) or len(part.wrong) > part.n:
            raise ValueError("`wrong`, which are no confidences of calibration images")


def check_rule(
    rule: Rule,
    result: ScoreResult,
    correct: NDArray[np.bool_],
    n_classes: int,
    eligible: NDArray[np.bool_] | None = None,
) -> None:
    """Raise `InputError` unless a rule accepts those calibration images that it says it does.

    Parameters
    ----------
    rule
        As it was stored.
    result, correct
        Prediction and confidence of the n calibration images, and `(n,)` which are right.
    n_classes
        Number of classes.
    eligible
        `(n,)` which of them may be accepted at all; None if that is not on record.

    Examples
    --------
    >>> confidence, correct = np.linspace(1, 0, 1000), np.arange(1000) < 700
    >>> result = ScoreResult(np.zeros(1000, dtype=np.int64), confidence)
    >>> check_rule(certify(confidence, correct), result, correct, 1)
    """
    n: int = rule.n  # type: ignore[attr-defined]
    parts: Sequence[Any] = getattr(rule, "certificates", (rule,))
    if n != len(correct) or (isinstance(rule, ClassCertificates) and len(parts) != n_classes):
        raise InputError("Its rule for accepting is of other images or classes.")
    for label, part in enumerate(parts):
        own = np.ones(n, dtype=bool)
        if isinstance(rule, ClassCertificates):
            own = result.prediction == label
        if part.threshold < result.confidence[own].min(initial=math.inf):
            raise InputError(
                f"Its threshold {part.threshold!r} is below all confidences that it was learned on."
            )
        reached = (result.confidence >= part.threshold) & own
        judged = reached if eligible is None else reached & eligible
        accepted = int(judged.sum())
        errors = int((judged & ~correct).sum())
        # Without a record of what a gate stopped, fewer may have been accepted.
        fits = (accepted, errors) == (part.accepted, part.errors)
        if not (fits or (eligible is None and accepted > part.accepted)):
            raise InputError(
                f"Its rule says that {part.accepted} of the calibration images are accepted, "
                f"{part.errors} of them wrong, but the threshold accepts {accepted}, of which "
                f"{errors} are wrong."
            )


def guarantee_p_value(
    rule: Rule,
    prediction: NDArray[np.int64],
    accepted: NDArray[np.bool_],
    correct: NDArray[np.bool_],
) -> float:
    """How often so many wrong labels would be accepted if the guarantee held; small contradicts it.

    Parameters
    ----------
    rule
        With its guarantee.
    prediction, accepted, correct
        `(n,)` each, of labelled images that the rule was not found on.

    Returns
    -------
    float
        The chance of at least as many errors among the accepted labels, if their risk is what is
        guaranteed; of several classes, the smallest times their number. NaN where nothing is
        accepted, and for costs and expected shares, which bound no risk of the accepted labels.

    Notes
    -----
    The exact binomial test (Clopper & Pearson 1934), one-sided. It is about these images: where it
    rejects, they are of another kind than the calibration images, or the calibration was one of
    the few that the confidence level leaves out.

    Examples
    --------
    >>> rule = certify(range(300), [True] * 300, risk=0.02)
    >>> every = np.ones(100, dtype=bool)
    >>> round(guarantee_p_value(rule, np.zeros(100, int), every, np.arange(100) >= 7), 4)
    0.0041
    """
    if isinstance(rule, ClassCertificates):
        classes = [c for c in np.unique(prediction[accepted]) if rule.certificates[c].certified]
        p_values = [
            _errors_p_value(accepted & (prediction == c), correct, rule.certificates[c].risk)
            for c in classes
        ]
        return min(1.0, min(p_values) * len(classes)) if classes else math.nan
    if isinstance(rule, Certificate) and rule.certified:
        return _errors_p_value(accepted, correct, rule.risk_bound)
    return math.nan


def _errors_p_value(accepted: NDArray[np.bool_], correct: NDArray[np.bool_], risk: float) -> float:
    n, errors = int(accepted.sum()), int((accepted & ~correct).sum())
    return float(scipy.stats.binom.sf(errors - 1, n, risk)) if n else math.nan


def assumption_of(rule: Rule) -> str:
    """Say what the guarantee of a rule assumes, and over what its probability is."""
    if isinstance(rule, ConformalSelection):
        return f"{_SAME_KIND} The mean is over the draw of the calibration images and the batch."
    return f"{_SAME_KIND} The confidence is over the draw of the calibration images."


# What the user wants of the decisions: a risk, a risk for each class, a coverage, or low costs.


GUARANTEES = ("high-probability", "expectation")
"""What a threshold is chosen for: a risk that holds with a stated probability over the calibration
images, or on average over them and the batch."""
"""Whether the risk is kept with a confidence level, by any one calibration, or only on average."""


def several_risks(risk: float | Sequence[float]) -> list[float]:
    """Return the risks that are asked for, of which the first decides.

    Raises
    ------
    InputError
        If there is none, or one is outside (0, 1).

    Examples
    --------
    >>> several_risks(0.05), several_risks([0.02, 0.1])
    ([0.05], [0.02, 0.1])
    """
    given: Any = risk
    values = [given] if np.ndim(given) == 0 else given
    risks = [check_fraction(value, "risk") for value in values]
    if not risks:
        raise InputError("Expected `risk` to be a number or several, but got none.")
    return risks


@dataclass(frozen=True)
class Goal:
    """One of four goals; the risk is the default one.

    Attributes
    ----------
    risk
        At most this share of what is accepted may be wrong.
    confidence_level
        Probability with which what is guaranteed holds, over the draw of the calibration set.
    per_class
        Whether the risk is to hold for the accepted labels of every class, all at once.
    min_coverage
        Instead of a risk: accept at least this share of new images, at the smallest risk.
    cost_error, cost_review
        Instead of a risk: prices of a wrong label that is accepted, and of a review.
    method
        Of `METHODS`, where a risk is wanted.
    guarantee
        Of `GUARANTEES`: `high-probability`, that the risk is kept with the confidence level; or
        `expectation`, that it is kept on average, which says less and needs fewer images.
    other_risks
        Further risks, each with a threshold of its own; all hold at once.
    class_risks
        Risks of their own of some classes, as pairs of index and risk, where `per_class`.

    Examples
    --------
    >>> confidence = np.linspace(1, 0, 300)
    >>> rule = Goal(min_coverage=0.5).rule(confidence, confidence > 0.2, np.zeros(300, int), 1)
    >>> round(rule.coverage, 2)
    0.55
    """

    risk: float = 0.05
    confidence_level: float = 0.95
    per_class: bool = False
    min_coverage: float | None = None
    cost_error: float | None = None
    cost_review: float | None = None
    method: str = DEFAULT_METHOD
    guarantee: str = GUARANTEES[0]
    other_risks: tuple[float, ...] = ()
    class_risks: tuple[tuple[int, float], ...] = ()

    def check(self) -> Goal:
        """Raise `InputError` unless this is one goal that makes sense; return it."""
        if (self.cost_error is None) != (self.cost_review is None):
            raise InputError("Expected both `cost_error` and `cost_review`, or neither.")
        chosen = {
            "per_class": self.per_class,
            "min_coverage": self.min_coverage is not None,
            "cost_error": self.cost_error is not None,
        }
        several = [name for name, wanted in chosen.items() if wanted]
        if len(several) > 1:
            raise InputError(f"Expected one goal, but got {' and '.join(several)}: choose one.")
        if self.guarantee not in GUARANTEES:
            raise InputError(
                f"Expected `guarantee` to be {' or '.join(GUARANTEES)}, but got {self.guarantee!r}."
            )
        if self.guarantee == "expectation" and (several or self.other_risks):
            raise InputError(
                "An expected share of errors is guaranteed for one risk of all accepted labels "
                f"together, not for {' and '.join(several) or 'several risks'}: leave one out."
            )
        if self.other_risks and several:
            raise InputError(
                "Several risks are certified for all accepted labels together, not with "
                f"{' and '.join(several)}: name one risk."
            )
        if self.class_risks and not self.per_class:
            raise InputError("Risks of single classes need --per-class (per_class=True).")
        risks = [
            check_fraction(risk, "risk")
            for risk in (self.risk, *self.other_risks, *dict(self.class_risks).values())
        ]
        for i, risk in enumerate(risks[: 1 + len(self.other_risks)]):
            if risk in risks[:i]:
                raise InputError(f"Expected different risks, but got {risk:g} twice.")
        check_fraction(self.confidence_level, "confidence_level")
        n_classes = 1 + max((label for label, _ in self.class_risks), default=0)
        self.rule(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64), n_classes)
        return self

    def rules(
        self,
        confidence: NDArray[np.float64],
        correct: NDArray[np.bool_],
        prediction: NDArray[np.int64],
        n_classes: int,
        eligible: NDArray[np.bool_] | None = None,
    ) -> tuple[Rule, ...]:
        """Find the rule for each risk, the first of which decides.

        Of several, each is certified at the level at which all of them hold at once with
        probability `confidence_level` (Bonferroni).
        """
        risks = (self.risk, *self.other_risks)
        level = self.confidence_level
        if len(risks) > 1:
            level = 1 - (1 - level) / len(risks)
        goals = [replace(self, risk=risk, other_risks=(), confidence_level=level) for risk in risks]
        return tuple(
            goal.rule(confidence, correct, prediction, n_classes, eligible) for goal in goals
        )

    def rule(
        self,
        confidence: NDArray[np.float64],
        correct: NDArray[np.bool_],
        prediction: NDArray[np.int64],
        n_classes: int,
        eligible: NDArray[np.bool_] | None = None,
    ) -> Rule:
        """Find the rule for `risk` on a calibration set, as the function for each goal does."""
        level = self.confidence_level
        if self.guarantee == "expectation":
            return select_conformal(confidence, correct, self.risk, eligible=eligible)
        if self.min_coverage is not None:
            return certify_coverage(
                confidence, correct, self.min_coverage, level, eligible=eligible
            )
        if self.cost_error is not None and self.cost_review is not None:
            prices = self.cost_error, self.cost_review
            return cheapest(confidence, correct, *prices, level, eligible=eligible)
        if self.per_class:
            return certify_per_class(
                confidence,
                correct,
                prediction,
                n_classes,
                self.risk,
                level,
                method=self.method,
                eligible=eligible,
                class_risks=dict(self.class_risks),
            )
        return certify(confidence, correct, self.risk, level, method=self.method, eligible=eligible)


def goal_of(rules: Sequence[Rule]) -> Goal:
    """Return the goal that rules were found for, so that it can be pursued on other images.

    Parameters
    ----------
    rules
        As `Goal.rules` returned them, the one that decides first.

    Examples
    --------
    >>> confidence, correct = np.linspace(1, 0, 300), np.arange(300) < 250
    >>> goal = Goal(risk=0.02, other_risks=(0.1,))
    >>> goal_of(goal.rules(confidence, correct, np.zeros(300, int), 1)) == goal
    True
    """
    first: Any = rules[0]
    if isinstance(first, ConformalSelection):
        return Goal(first.risk, guarantee="expectation")
    level = first.confidence_level
    if isinstance(first, CostThreshold):
        return Goal(
            confidence_level=level, cost_error=first.cost_error, cost_review=first.cost_review
        )
    if isinstance(first, ClassCertificates):
        own = tuple((i, c.risk) for i, c in enumerate(first.certificates) if c.risk != first.risk)
        method = first.certificates[0].method
        return Goal(first.risk, level, per_class=True, method=method, class_risks=own)
    if first.method == "coverage":
        return Goal(confidence_level=level, min_coverage=first.wanted_coverage)
    if len(rules) > 1:
        # What Bonferroni took from each, without the last digits that this costs.
        level = round(1 - len(rules) * (1 - level), 12)
    others = tuple(getattr(rule, "risk", math.nan) for rule in rules[1:])
    return Goal(first.risk, level, method=first.method, other_risks=others)
