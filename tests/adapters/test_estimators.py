"""The scikit-learn classifier against the scores themselves, and scikit-learn's own checks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from trustvlm import PrototypeBank, adapters, scores
from trustvlm.adapters.sklearn import TrustClassifier
from trustvlm.exceptions import InputError

RNG = np.random.default_rng(4)
CENTRES = RNG.normal(size=(3, 8))
Y = RNG.integers(3, size=90)
IMAGES = CENTRES[Y] + RNG.normal(size=(90, 8))
TEXT = CENTRES + 0.8 * RNG.normal(size=(3, 8))
OTHER = RNG.normal(size=(3, 5))[Y] + 0.7 * RNG.normal(size=(90, 5))
NAMES = np.array(["ant", "bee", "cat"])[Y]


@parametrize_with_checks([TrustClassifier(), TrustClassifier(correct=False, weight=0.5)])
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    check(estimator)


def test_the_package_offers_the_classifier():
    assert adapters.TrustClassifier is TrustClassifier
    assert set(adapters.__all__) <= set(dir(adapters))
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        _ = adapters.Nobody


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", ["trustvlm", "trustvlm_star"])
def test_it_is_the_score(name, second):
    X = np.hstack([IMAGES, OTHER]) if second else IMAGES
    features = OTHER if second else IMAGES
    settings = {"correct": name == "trustvlm_star", "weight": 0.7, "logit_scale": 10}
    model = TrustClassifier(TEXT, method="trustvlm", **settings)
    model.fit(X[:45], NAMES[:45])
    logits = (
        10
        * (IMAGES / np.linalg.norm(IMAGES, axis=1, keepdims=True))
        @ (TEXT / np.linalg.norm(TEXT, axis=1, keepdims=True)).T
    )
    bank = PrototypeBank().fit(features[:45], Y[:45], n_classes=3)
    expected = scores.compute(name, logits=logits, features=features, bank=bank, weight=0.7)
    assert (
        model.predict(X).tolist() == np.array(["ant", "bee", "cat"])[expected.prediction].tolist()
    )
    np.testing.assert_allclose(model.score_samples(X), expected.confidence, atol=1e-12)
    assert 0 < (model.predict(X) != NAMES).sum() < 45


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", ["auto", "auto_star"])
def test_by_default_it_is_the_score_that_weighs_text_and_examples_itself(name, second):
    X = np.hstack([IMAGES, OTHER]) if second else IMAGES
    features = OTHER if second else IMAGES
    model = TrustClassifier(TEXT, correct=name == "auto_star", logit_scale=10)
    model.fit(X[:45], NAMES[:45])
    logits = scores.zero_shot_logits(IMAGES, TEXT, logit_scale=10)
    expected = scores.compute(
        name,
        logits=logits,
        features=features,
        support_features=features[:45],
        support_labels=Y[:45],
        support_logits=logits[:45],
    )
    labels = np.array(["ant", "bee", "cat"])
    assert model.predict(X).tolist() == labels[expected.prediction].tolist()
    np.testing.assert_allclose(model.score_samples(X), expected.confidence, atol=1e-9)
    assert (model.predict(X) != labels[logits.argmax(axis=1)]).any() == (name == "auto_star")


def test_a_method_that_it_does_not_offer_is_refused():
    with pytest.raises(InputError, match="auto or trustvlm, but got 'auto_star'"):
        TrustClassifier(TEXT, method="auto_star").fit(IMAGES, NAMES)


@pytest.mark.parametrize("text", [None, TEXT])
@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("method", ["auto", "trustvlm"])
def test_shares_sum_to_one_and_name_the_label(text, correct, method):
    settings = {"correct": correct, "method": method, "temperature": 0.1, "logit_scale": 5}
    model = TrustClassifier(text, **settings)
    model.fit(IMAGES, NAMES)
    shares = model.predict_proba(IMAGES)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares >= 0).all()
    assert model.classes_[shares.argmax(axis=1)].tolist() == model.predict(IMAGES).tolist()


def test_it_works_within_scikit_learn():
    unit = FunctionTransformer(lambda X: X / np.linalg.norm(X, axis=1, keepdims=True))
    pipeline = make_pipeline(unit, TrustClassifier(temperature=0.1))
    assert pipeline.fit(IMAGES, NAMES).score(IMAGES, NAMES) > 0.8
    settings = {"method": ["auto", "trustvlm"], "weight": [0.0, 1.0]}
    search = GridSearchCV(TrustClassifier(TEXT), settings, cv=3).fit(IMAGES, NAMES)
    assert search.best_params_["weight"] in (0.0, 1.0)
    calibrated = CalibratedClassifierCV(TrustClassifier(), cv=3).fit(IMAGES, NAMES)
    np.testing.assert_allclose(calibrated.predict_proba(IMAGES[:5]).sum(axis=1), 1)


def test_an_image_that_points_nowhere_has_a_label():
    model = TrustClassifier().fit(IMAGES, NAMES)
    assert model.predict(np.zeros((1, 8)))[0] in NAMES
    assert np.isfinite(model.score_samples(np.zeros((1, 8)))).all()


@pytest.mark.parametrize("text", [TEXT[:2], TEXT[0], np.ones((3, 9))])
def test_text_that_does_not_fit_is_refused(text):
    with pytest.raises(InputError, match=r"C = 3 classes and e of at most 8 columns"):
        TrustClassifier(text).fit(IMAGES, NAMES)
