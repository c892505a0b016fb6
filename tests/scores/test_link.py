"""The sigmoid in place of the softmax, for scores of models that were trained with it."""

from __future__ import annotations

import numpy as np
import pytest

from trustvlm.exceptions import InputError
from trustvlm.scores import PrototypeBank, compute, get, names

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(12.0, 4.0, (50, 7))
BIAS = -12.5
SIGMOID = 1 / (1 + np.exp(-(LOGITS + BIAS)))
LINKED = ("margin", "msp", "trustvlm")
SHOTS = RNG.normal(size=(21, 5))
FEATURES = RNG.normal(size=(50, 5))
BANK = PrototypeBank().fit(SHOTS, np.arange(21) % 7)


def test_scores_that_take_a_link_say_so() -> None:
    assert tuple(name for name in sorted(names()) if "link" in get(name).parameters) == LINKED
    assert {get(name).parameters["link"] for name in LINKED} == {"softmax"}


def test_msp_is_the_largest_sigmoid_and_keeps_the_label() -> None:
    result = compute("msp", logits=LOGITS, link="sigmoid", logit_bias=BIAS)
    np.testing.assert_array_equal(result.prediction, LOGITS.argmax(axis=1))
    np.testing.assert_allclose(result.confidence, SIGMOID.max(axis=1), atol=1e-12)


def test_it_does_not_depend_on_the_other_classes() -> None:
    few = np.sort(LOGITS, axis=1)[:, -2:]
    whole = compute("msp", logits=LOGITS, link="sigmoid", logit_bias=BIAS).confidence
    np.testing.assert_array_equal(
        compute("msp", logits=few, link="sigmoid", logit_bias=BIAS).confidence, whole
    )
    softmax = compute("msp", logits=LOGITS).confidence
    assert (compute("msp", logits=few).confidence > softmax).all()


def test_margin_is_the_difference_of_the_two_largest() -> None:
    top = np.sort(SIGMOID, axis=1)
    result = compute("margin", logits=LOGITS, link="sigmoid", logit_bias=BIAS)
    np.testing.assert_allclose(result.confidence, top[:, -1] - top[:, -2], atol=1e-12)


def test_trustvlm_adds_the_image_similarity() -> None:
    arrays = {"logits": LOGITS, "features": FEATURES, "bank": BANK}
    image = compute("image_similarity", **arrays).confidence
    result = compute("trustvlm", **arrays, weight=0.3, link="sigmoid", logit_bias=BIAS)
    np.testing.assert_allclose(result.confidence, SIGMOID.max(axis=1) + 0.3 * image, atol=1e-12)


@pytest.mark.parametrize("name", LINKED)
def test_given_labels_are_judged_by_themselves(name: str) -> None:
    labels = np.arange(50) % 7
    arrays = {"logits": LOGITS, "features": FEATURES, "bank": BANK, "given_labels": labels}
    result = compute(name, **arrays, link="sigmoid", logit_bias=BIAS)
    np.testing.assert_array_equal(result.prediction, labels)
    own = SIGMOID[np.arange(50), labels]
    if name == "msp":
        np.testing.assert_allclose(result.confidence, own, atol=1e-12)
    else:
        assert not np.allclose(result.confidence, compute(name, **arrays).confidence)


def test_the_softmax_is_what_it_was() -> None:
    for name in LINKED:
        arrays = {"logits": LOGITS, "features": FEATURES, "bank": BANK}
        plain = compute(name, **arrays)
        for linked in (
            compute(name, **arrays, logit_bias=BIAS),
            compute(name, **arrays, link="softmax"),
        ):
            np.testing.assert_array_equal(linked.confidence, plain.confidence)


def test_extreme_logits_overflow_nothing() -> None:
    result = compute("msp", logits=[[1e6, -1e6], [-1e6, -2e6]], link="sigmoid", logit_bias=0.0)
    np.testing.assert_array_equal(result.prediction, [0, 0])
    np.testing.assert_array_equal(result.confidence, [1.0, 0.0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"link": "sigmoid"}, r"needs the bias of a model .*`logit_bias`"),
        ({"link": "logistic", "logit_bias": 0.0}, "softmax or sigmoid, but .* got 'logistic'"),
        ({"logit_bias": float("nan")}, "`logit_bias` to be a finite number"),
    ],
)
@pytest.mark.parametrize("name", LINKED)
def test_what_makes_no_sense_is_refused(
    name: str, parameters: dict[str, object], message: str
) -> None:
    arrays = {"logits": LOGITS, "features": FEATURES, "bank": BANK}
    with pytest.raises(InputError, match=message):
        compute(name, **arrays, **parameters)


def test_a_score_without_a_link_names_those_that_have_one() -> None:
    with pytest.raises(InputError, match=r"`entropy` has no parameter `link`.*msp, margin"):
        compute("entropy", logits=LOGITS, link="sigmoid", logit_bias=BIAS)
