import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm.pipeline.predict import explain, reasons
from trustvlm.scores import Evidence, PrototypeBank, apply
from trustvlm.text import exact_number, number_beside

NAMES = ["birman", "ragdoll", "siamese"]
BANK = PrototypeBank().fit([[1.0, 0.0], [0.0, 1.0]], [0, 1], n_classes=3)


def explained(logits, features, score="trustvlm", bank=BANK, names=NAMES):
    evidence = Evidence.of(logits=[logits], features=[features], bank=bank)
    prediction = apply(score, evidence).prediction
    shown = explain(evidence, prediction)
    return reasons(prediction, shown, names)[0], shown


def test_agreement():
    why, shown = explained([3.0, 0.0, 0.0], [1.0, 0.2])
    assert why == "text and examples agree on 'birman' (examples 0.98, 'ragdoll' 0.20)"
    assert shown.runner_up[0] == 1


def test_agreement_with_an_unsure_text():
    why, _ = explained([0.1, 0.0, 0.0], [1.0, 0.0])
    assert "the text alone is unsure (0.36, 'ragdoll' 0.32)" in why


def test_disagreement_names_both_classes_and_makes_the_other_the_runner_up():
    why, shown = explained([0.0, 3.0, 1.0], [1.0, 0.0])
    assert why == (
        "the image resembles the examples of 'birman' (1.00) more than those of 'ragdoll' (0.00), "
        "the predicted class"
    )
    assert shown.runner_up[0] == 0


def test_a_class_without_examples_is_said_to_have_none():
    why, shown = explained([0.0, 0.0, 3.0], [1.0, 0.0])
    assert why.startswith("there are no example images of 'siamese', so only the text supports it")
    assert "resembles 'birman' most (1.00)" in why
    assert np.isnan(shown.image_score[0])


def test_no_examples_at_all():
    empty = PrototypeBank().fit(np.empty((0, 2)), np.empty(0, dtype=int), n_classes=3)
    why, shown = explained([0.0, 0.0, 3.0], [1.0, 0.0], bank=empty)
    assert why == "there are no example images of 'siamese', so only the text supports it (0.91)"
    assert shown.nearest[0] == -1


def test_a_correction_says_what_the_text_wanted():
    why, _ = explained([1.0, 1.2, 0.0], [1.0, 0.0], score="trustvlm_star")
    assert "outweighs the text's choice of 'ragdoll'" in why


def test_a_single_class():
    one = PrototypeBank().fit([[1.0, 0.0]], [0])
    why, shown = explained([1.0], [1.0, 0.0], bank=one, names=["cat"])
    assert "the only class" in why
    assert shown.runner_up[0] == -1


@pytest.mark.parametrize("n", [0, 1, 5])
def test_any_number_of_images(n):
    evidence = Evidence.of(logits=np.zeros((n, 3)), features=np.ones((n, 2)), bank=BANK)
    shown = explain(evidence, np.zeros(n, dtype=int))
    assert len(reasons(np.zeros(n, dtype=int), shown, NAMES)) == n


@given(st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-9), st.integers(-3, 3))
def test_numbers_are_written_on_their_side_of_the_threshold(threshold, steps):
    value = threshold
    for _ in range(abs(steps)):
        value = math.nextafter(value, math.copysign(math.inf, steps))
    assert float(exact_number(threshold)) == threshold
    written = float(number_beside(value, threshold))
    assert (written >= threshold) == (value >= threshold)
    assert (written > threshold) == (value > threshold)
