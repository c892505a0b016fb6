import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm import PrototypeBank
from trustvlm.exceptions import EvidenceMissingError
from trustvlm.scores import Evidence, arrays
from trustvlm.scores.evidence import compare, prototype_similarities
from trustvlm.scores.held_out import compare_held_out


def shots(labels, seed=0, n_classes=4, d=6):
    rng = np.random.default_rng(seed)
    return Evidence.of(
        logits=np.empty((0, n_classes)),
        support_features=rng.normal(size=(len(labels), d)),
        support_labels=np.asarray(labels, dtype=int),
        support_logits=rng.normal(size=(len(labels), n_classes)),
    )


def members(labels, c):
    return [i for i, label in enumerate(labels) if label == c]


@given(st.lists(st.integers(0, 3), max_size=14), st.integers(0, 10_000))
def test_each_shot_is_compared_with_prototypes_made_without_it(labels, seed):
    evidence = shots(labels, seed)
    held_out = compare_held_out(evidence)
    expected = [i for i in range(len(labels)) if len(members(labels, labels[i])) > 1]
    assert held_out.kept.tolist() == expected
    assert held_out.labels.tolist() == [labels[i] for i in expected]
    np.testing.assert_array_equal(
        held_out.comparison.logits, evidence.support_logits[held_out.kept]
    )
    assert held_out.comparison.present.tolist() == [bool(members(labels, c)) for c in range(4)]
    for row, i in zip(held_out.comparison.similarities, expected, strict=True):
        j = members(labels, labels[i]).index(i)
        without = {
            of_class[j % len(of_class)]
            for of_class in (members(labels, c) for c in range(4))
            if len(of_class) > 1
        }
        assert i in without
        rest = [k for k in range(len(labels)) if k not in without]
        bank = PrototypeBank().fit(
            evidence.support_features[rest], np.array(labels, dtype=int)[rest], n_classes=4
        )
        slow = np.nan_to_num(bank.similarities(evidence.support_features[[i]])[0], nan=-1.0)
        np.testing.assert_allclose(row, slow, atol=1e-12)


def test_no_prototype_of_a_fold_has_more_shots_than_another():
    """Equal shots: each is compared with N - 1 others of its class and N - 1 of any other."""
    labels = np.repeat([0, 1], 2)
    features = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    evidence = Evidence.of(
        logits=np.empty((0, 2)),
        support_features=features,
        support_labels=labels,
        support_logits=np.zeros((4, 2)),
    )
    similarities = compare_held_out(evidence).comparison.similarities
    # Both classes are the same pair of shots: neither may look nearer than the other.
    np.testing.assert_allclose(similarities[:, 0], similarities[:, 1], atol=1e-15)


def test_shots_whose_rest_cancels_are_left_out():
    evidence = Evidence.of(
        logits=np.empty((0, 1)),
        support_features=[[1.0, 0.0], [0.1, 0.3], [-0.1, -0.3]],
        support_labels=[0, 0, 0],
        support_logits=np.zeros((3, 1)),
    )
    held_out = compare_held_out(evidence)
    assert held_out.kept.tolist() == [1, 2]
    assert np.isfinite(held_out.comparison.similarities).all()


def test_missing_shots_are_named():
    bank = PrototypeBank().fit([[1.0, 0.0]], [0])
    with pytest.raises(EvidenceMissingError, match="`support_logits`"):
        compare_held_out(Evidence.of(logits=[[1.0]], bank=bank))


def test_compare_is_the_banks_similarities():
    evidence = shots([0, 0, 2]).with_images(logits=np.zeros((2, 4)), features=np.eye(6)[:2])
    result = compare(evidence)
    np.testing.assert_allclose(
        result.similarities,
        np.nan_to_num(evidence.bank.similarities(np.eye(6)[:2]), nan=-1),
        atol=1e-15,
    )
    # The table of a small batch is shared: nothing is computed anew, and not a bit differs.
    shared = prototype_similarities(evidence)
    np.testing.assert_array_equal(shared, evidence.bank.similarities(np.eye(6)[:2]))
    np.testing.assert_array_equal(shared[:, result.present], result.table[:, result.present])
    assert prototype_similarities(evidence.rows(slice(0, 0))).shape == (0, 4)
    assert result.present.tolist() == [True, False, True, False]
    np.testing.assert_allclose(result.probabilities, 0.25)
    classes = np.array([2, 1])
    np.testing.assert_allclose(
        result.similarity_to(classes), result.similarities[[0, 1], classes], atol=1e-15
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_of_classes_are_the_same_to_the_bit_however_many_rows(monkeypatch, dtype):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(300, 7)), rng.integers(0, 9, 300)
    summed = arrays.class_sums(rows, labels, 11, dtype=dtype)
    monkeypatch.setattr(arrays, "_FEW_ROWS", 0)
    np.testing.assert_array_equal(summed, arrays.class_sums(rows, labels, 11, dtype=dtype))
    assert summed.dtype == dtype
