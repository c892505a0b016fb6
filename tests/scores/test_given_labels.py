"""Labels from elsewhere: scores judge them instead of the VLM's, with or without its text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit, softmax
from sklearn.metrics import roc_auc_score

from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores import compute, names
from trustvlm.scores.compute import get, judging_given
from trustvlm.scores.evidence import Evidence

C, D, SHOTS, N = 5, 8, 3, 40
TRUTH = np.random.default_rng(3).integers(0, C, N)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Images and shots of five classes, and logits that favour the right one a little."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(C, D))
    labels = np.repeat(np.arange(C), SHOTS)
    texts = rng.normal(size=(C, D))
    return {
        "logits": rng.normal(size=(N, C)) + 2 * np.eye(C)[TRUTH],
        "features": centres[TRUTH] + 0.5 * rng.normal(size=(N, D)),
        "support_features": centres[labels] + 0.5 * rng.normal(size=(len(labels), D)),
        "support_labels": labels,
        "support_logits": rng.normal(size=(len(labels), C)) + 2 * np.eye(C)[labels],
        "image_embeddings": rng.normal(size=(N, D)),
        "support_image_embeddings": rng.normal(size=(len(labels), D)),
        "text_embeddings": texts,
    }


@pytest.fixture(scope="module")
def given() -> np.ndarray:
    """Labels that have nothing to do with the logits."""
    return np.random.default_rng(1).integers(0, C, N)


def without_text(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out all that is of a VLM."""
    kept = ("features", "support_features", "support_labels")
    return {name: arrays[name] for name in kept}


@pytest.mark.parametrize("name", judging_given())
def test_the_vlms_own_labels_are_judged_as_ever(name, arrays) -> None:
    as_ever = compute(name, **arrays)
    own = compute(name, **arrays, given_labels=arrays["logits"].argmax(axis=1))
    assert (own.prediction == as_ever.prediction).all()
    assert own.confidence == pytest.approx(as_ever.confidence, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", judging_given())
def test_labels_stay_with_their_image_and_are_returned(name, arrays, given) -> None:
    together = compute(name, **arrays, given_labels=given)
    assert (together.prediction == given).all()
    of_images = ("logits", "features", "image_embeddings")
    for i in (0, 7, N - 1):
        one = {k: v[[i]] if k in of_images else v for k, v in arrays.items()}
        alone = compute(name, **one, given_labels=given[[i]])
        assert alone.confidence == pytest.approx(together.confidence[[i]], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", judging_given())
def test_the_right_label_is_trusted_more_than_another(name, arrays) -> None:
    right = compute(name, **arrays, given_labels=TRUTH).confidence
    wrong = compute(name, **arrays, given_labels=(TRUTH + 1) % C).confidence
    assert right.mean() > wrong.mean()


def test_text_scores_of_a_given_label_by_their_formulas(arrays, given) -> None:
    p, rows = softmax(arrays["logits"], axis=1), np.arange(N)
    own = p[rows, given]
    others = np.where(np.eye(C, dtype=bool)[given], -np.inf, p).max(axis=1)
    assert compute("msp", **arrays, given_labels=given).confidence == pytest.approx(own)
    assert compute("margin", **arrays, given_labels=given).confidence == pytest.approx(own - others)
    maxlogit = compute("maxlogit", **arrays, given_labels=given).confidence
    assert np.array_equal(maxlogit, arrays["logits"][rows, given])
    means = arrays["support_features"].reshape(C, SHOTS, D).mean(axis=1)[given]
    x = arrays["features"]
    cosine = (x * means).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(means, axis=1)
    trustvlm = compute("trustvlm", **arrays, given_labels=given).confidence
    assert trustvlm == pytest.approx(own + cosine)


@pytest.mark.parametrize("name", judging_given(text=False))
def test_without_text_as_with_one_that_favours_no_class(name, arrays, given) -> None:
    alone = without_text(arrays)
    flat = {"logits": np.zeros((N, C)), "support_logits": np.zeros((C * SHOTS, C))}
    result = compute(name, **alone, given_labels=given)
    assert np.array_equal(
        result.confidence, compute(name, **alone, **flat, given_labels=given).confidence
    )
    assert roc_auc_score(given == TRUTH, result.confidence) > 0.75


def test_what_needs_text_says_so(arrays, given) -> None:
    for name in set(judging_given()) - set(judging_given(text=False)):
        with pytest.raises(EvidenceMissingError):
            compute(name, **without_text(arrays), given_labels=given)
    with pytest.raises(EvidenceMissingError, match="given_labels"):
        compute("auto", **without_text(arrays))
    with pytest.raises(InputError, match="Expected `logits`"):
        compute("msp", given_labels=given)


@pytest.mark.parametrize("name", sorted(set(names()) - set(judging_given())))
def test_scores_that_judge_their_own_label_refuse_others(name, arrays, given) -> None:
    with pytest.raises(InputError, match=r"cannot judge given ones: use .*auto\b"):
        compute(name, **arrays, given_labels=given)
    assert not get(name).without_text


def test_the_labellers_probability_counts_by_its_log_odds(arrays, given) -> None:
    plain = compute("auto", **arrays, given_labels=given).confidence
    p = np.random.default_rng(2).uniform(0.01, 0.99, N)
    with_p = compute("auto", **arrays, given_labels=given, label_confidence=p).confidence
    assert with_p - plain == pytest.approx(0.5 * logit(p))
    unknown = np.where(np.arange(N) % 2, p, np.nan)
    partly = compute("auto", **arrays, given_labels=given, label_confidence=unknown).confidence
    assert partly == pytest.approx(np.where(np.arange(N) % 2, with_p, plain))
    certain = compute("auto", **arrays, given_labels=given, label_confidence=np.ones(N))
    assert np.isfinite(certain.confidence).all()
    with pytest.raises(InputError, match="no use of `label_confidence`"):
        compute("knn", **arrays, given_labels=given, label_confidence=p)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"given_labels": np.full(N, C)}, "given_labels"),
        ({"given_labels": np.zeros(N - 1, dtype=int)}, f"{N} entries"),
        ({"given_labels": np.zeros(N)}, "integers"),
        ({"label_confidence": np.ones(N)}, "`given_labels` with"),
        ({"given_labels": np.zeros(N, int), "label_confidence": np.ones(N - 1)}, "shape"),
        ({"given_labels": np.zeros(N, int), "label_confidence": np.full(N, 99.0)}, "0 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(wrong, message, arrays) -> None:
    with pytest.raises(InputError, match=message):
        compute("auto", **arrays, **wrong)


def test_evidence_on_other_images_has_text_or_none_as_the_shots_do(arrays, given) -> None:
    alone = Evidence.of(**without_text(arrays), given_labels=given)
    again = alone.with_images(features=arrays["features"][:2], given_labels=given[:2])
    assert again.n == 2
    assert not again.has("logits")
    with pytest.raises(InputError, match="no logits"):
        alone.with_images(logits=arrays["logits"], features=arrays["features"])
    with pytest.raises(InputError, match="Expected logits"):
        Evidence.of(**arrays).with_images(features=arrays["features"])


@pytest.mark.data
def test_examples_alone_find_wrong_labels_on_clip_embeddings(clip_embeddings_root: Path) -> None:
    """Four shots a class of DTD, no text: labels by CLIP, and right ones of which 10 % are not."""
    train, test = (
        np.load(clip_embeddings_root / f"dtd_clip_vitb32__{part}.npz") for part in ("train", "test")
    )
    truth, classes = test["labels"], len(test["class_names"])
    texts = test["text_embeddings"].astype(float)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    alike = (texts @ texts.T - 2 * np.eye(classes)).argmax(axis=1)
    aurocs: dict[str, list[float]] = {}
    for draw in range(3):
        rng = np.random.default_rng(draw)
        shots = np.concatenate(
            [rng.permutation(np.flatnonzero(train["labels"] == c))[:4] for c in range(classes)]
        )
        wrong = rng.random(len(truth)) < 0.1
        others = (truth + rng.integers(1, classes, len(truth))) % classes
        labellers = {
            "clip": test["logits"].argmax(axis=1),
            "uniform": np.where(wrong, others, truth),
            "look-alike": np.where(wrong, alike[truth], truth),
        }
        for labeller, labels in labellers.items():
            result = compute(
                "auto",
                features=test["features"],
                support_features=train["features"][shots],
                support_labels=train["labels"][shots],
                given_labels=labels,
            )
            auroc = roc_auc_score(labels == truth, result.confidence)
            aurocs.setdefault(labeller, []).append(auroc)
    means = {labeller: np.mean(values) for labeller, values in aurocs.items()}
    assert means["clip"] > 0.87
    assert means["uniform"] > 0.945
    assert means["look-alike"] > 0.88
