import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm import PrototypeBank
from trustvlm.exceptions import ArtefactError, InputError
from trustvlm.scores import Evidence


def shots(seed, n=12, n_classes=4, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 0.5, rng.integers(0, n_classes, size=n)


def obvious_prototype(features, labels, c):
    mean = np.mean([f for f, y in zip(features, labels, strict=True) if y == c], axis=0)
    return mean / np.sqrt(sum(x * x for x in mean))


@given(st.integers(0, 1000))
def test_prototype_is_the_normalised_mean_of_unnormalised_shots(seed):
    features, labels = shots(seed)
    bank = PrototypeBank().fit(features, labels, n_classes=4)
    for c in range(4):
        if (labels == c).any():
            np.testing.assert_allclose(
                bank.prototypes_[c], obvious_prototype(features, labels, c), atol=1e-12
            )
        else:
            assert not bank.present_[c]
            assert not bank.prototypes_[c].any()


def test_averaging_comes_before_normalising():
    bank = PrototypeBank().fit([[10.0, 0.0], [0.0, 1.0]], [0, 0])
    normalised_first = np.array([1.0, 1.0]) / np.sqrt(2)
    assert np.abs(bank.prototypes_[0] - normalised_first).max() > 0.2


@given(st.integers(0, 1000), st.integers(1, 11))
def test_adding_merging_and_removing_equal_one_fit(seed, cut):
    features, labels = shots(seed)
    whole = PrototypeBank().fit(features, labels, n_classes=4)
    first = PrototypeBank().fit(features[:cut], labels[:cut], n_classes=4)
    second = PrototypeBank().fit(features[cut:], labels[cut:], n_classes=4)
    merged = first.merge(second)
    first.prototypes_  # noqa: B018 -- a cached value must not survive the addition
    first.add(features[cut:], labels[cut:])
    for other in (merged, first):
        np.testing.assert_allclose(other.prototypes_, whole.prototypes_, atol=1e-12)
        np.testing.assert_array_equal(other.counts_, whole.counts_)
    first.remove(features[:cut], labels[:cut])
    np.testing.assert_allclose(first.prototypes_, second.prototypes_, atol=1e-9)
    assert (first.prototypes_[~first.present_] == 0).all()


def test_a_class_that_loses_its_shots_one_by_one_has_no_direction():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(7, 5)), np.zeros(7, dtype=int)
    bank = PrototypeBank().fit(features, labels, n_classes=2)
    for feature in features:
        bank.remove(feature[None], [0])
    assert not bank.present_.any()
    assert not bank.sums_.any()


@given(st.integers(0, 1000))
def test_order_of_shots_does_not_matter(seed):
    features, labels = shots(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    a = PrototypeBank().fit(features, labels, n_classes=4).prototypes_
    b = PrototypeBank().fit(features[order], labels[order], n_classes=4).prototypes_
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_similarities_are_cosines_and_absent_classes_are_nan():
    bank = PrototypeBank().fit([[1.0, 0.0], [0.0, 2.0]], [0, 1], n_classes=3)
    similarities = bank.similarities([[3.0, 4.0]])
    np.testing.assert_allclose(similarities[0, :2], [0.6, 0.8], rtol=1e-12)
    assert np.isnan(similarities[0, 2])


def test_float16_and_one_shot_are_fine():
    bank = PrototypeBank().fit(np.array([[1, 2]], dtype=np.float16), [0])
    assert bank.n_classes == 1
    assert bank.dim == 2
    np.testing.assert_allclose(np.linalg.norm(bank.prototypes_), 1)


def test_saved_bank_is_the_same_bank(tmp_path):
    features, labels = shots(3)
    bank = PrototypeBank().fit(features, labels, n_classes=6)
    bank.save(tmp_path / "bank.safetensors", class_names=list("abcdef"))
    loaded = PrototypeBank.load(tmp_path / "bank.safetensors")
    np.testing.assert_array_equal(loaded.sums_, bank.sums_)
    np.testing.assert_array_equal(loaded.counts_, bank.counts_)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("content", [b"", b"not a bank", b"\x80\x04."])
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "bank.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"bank\.safetensors"):
        PrototypeBank.load(path)


@pytest.mark.parametrize(
    ("features", "labels", "n_classes", "message"),
    [
        ([[1.0, np.nan]], [0], 1, "row 0"),
        ([[1.0, 0.0], [0.0, 0.0]], [0, 0], 1, "all zeros, the first is row 1"),
        ([[1.0, 0.0]], [2], 2, "lie in 0..1"),
        ([[1.0, 0.0]], [-1], 2, "lie in 0..1"),
        ([[1.0, 0.0]], [0, 1], 2, "1 entries"),
        ([[1.0, 0.0]], [0.5], 2, "integers"),
        ([1.0, 0.0], [0], 2, r"array\[None, :\]"),
        ([["a", "b"]], [0], 1, "real numbers"),
        ([[1.0, 0.0]], [0], 0, "at least 1"),
    ],
)
def test_bad_input_is_explained(features, labels, n_classes, message):
    with pytest.raises(InputError, match=message):
        PrototypeBank().fit(features, labels, n_classes=n_classes)


def test_other_misuse_is_explained():
    bank = PrototypeBank().fit([[1.0, 0.0]], [0])
    with pytest.raises(InputError, match="another encoder"):
        bank.add([[1.0, 0.0, 0.0]], [0])
    with pytest.raises(InputError, match="at most the 1 shots"):
        bank.remove([[1.0, 0.0], [1.0, 0.0]], [0, 0])
    with pytest.raises(InputError, match="one shape"):
        bank.merge(PrototypeBank().fit([[1.0]], [0]))
    with pytest.raises(InputError, match="call fit"):
        PrototypeBank().similarities([[1.0]])
    with pytest.raises(InputError, match="cancel each other"):
        PrototypeBank().fit([[1.0], [-1.0]], [0, 0]).prototypes_  # noqa: B018


@pytest.mark.parametrize("labels", [["cat", "dog"], np.array(["cat", "dog"], dtype=object)])
def test_names_of_classes_are_refused_and_it_is_said_what_to_write(labels):
    for fit in (
        lambda: PrototypeBank().fit(np.eye(2), labels),
        lambda: PrototypeBank().fit(np.eye(2), labels, n_classes=2),
        lambda: Evidence.of(logits=np.eye(2), support_features=np.eye(2), support_labels=labels),
    ):
        with pytest.raises(
            InputError, match=r"got texts such as 'cat': write \[class_names\.index"
        ):
            fit()
    for wrong in ([0.5, 1.0], [-1, 0], [[0, 1]]):
        with pytest.raises(InputError, match="Expected `labels` to"):
            PrototypeBank().fit(np.eye(2), wrong)
