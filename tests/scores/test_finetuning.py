import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustvlm import PrototypeBank, scores
from trustvlm.exceptions import InputError
from trustvlm.scores.finetuning import Recipe, finetune_prototypes


def shots(seed=0, m=24, n_classes=4, d=5, absent=()):
    rng = np.random.default_rng(seed)
    labels = np.array([c for c in np.arange(m) % n_classes if c not in absent], dtype=int)
    features = rng.normal(size=(n_classes, d))[labels] + rng.normal(size=(len(labels), d))
    return features, labels, PrototypeBank().fit(features, labels, n_classes=n_classes)


def slow_loss(weights, features, labels, temperature):
    """Mean cross-entropy, shot by shot; `weights` by class."""
    total = 0.0
    for x, y in zip(features, labels, strict=True):
        cosines = {
            c: x @ w / math.sqrt(x @ x) / math.sqrt(w @ w) / temperature for c, w in weights.items()
        }
        total += math.log(sum(math.exp(v - cosines[y]) for v in cosines.values()))
    return total / len(labels)


def slow_gradient(weights, features, labels, temperature):
    result = {}
    for c, w in weights.items():
        result[c] = np.zeros_like(w)
        for j in range(len(w)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = w.copy()
                moved[j] += step
                ends.append(slow_loss(weights | {c: moved}, features, labels, temperature))
            result[c][j] = (ends[0] - ends[1]) / 2e-5
    return result


@given(st.integers(0, 1000), st.sampled_from([(), (2,)]))
@settings(max_examples=8, deadline=None)
def test_it_is_adamw_written_out(seed, absent):
    """Loshchilov & Hutter 2019, line by line, with gradients by finite differences."""
    features, labels, bank = shots(seed, m=8, d=3, absent=absent)
    recipe = Recipe(temperature=0.5, epochs=3, learning_rate=0.02, batch_size=3, seed=seed)
    tuned = finetune_prototypes(bank, features, labels, recipe)
    weights = {int(c): bank.prototypes_[c].copy() for c in np.flatnonzero(bank.present_)}
    first = dict.fromkeys(weights, 0.0)
    second = dict.fromkeys(weights, 0.0)
    losses = np.zeros(3)
    per_epoch = -(-len(labels) // 3)
    for t, (epoch, _, batch) in enumerate(recipe.steps(len(labels)), start=1):
        rate = 0.02 * 0.5 * (1 + math.cos(math.pi * (t - 1) / (3 * per_epoch)))
        losses[epoch] += slow_loss(weights, features[batch], labels[batch], 0.5) * len(batch)
        gradient = slow_gradient(weights, features[batch], labels[batch], 0.5)
        for c, g in gradient.items():
            first[c] = 0.9 * first[c] + 0.1 * g
            second[c] = 0.999 * second[c] + 0.001 * g**2
            m, v = first[c] / (1 - 0.9**t), second[c] / (1 - 0.999**t)
            weights[c] = weights[c] - rate * 0.01 * weights[c]
            weights[c] = weights[c] - rate * m / (np.sqrt(v) + 1e-4)
    np.testing.assert_allclose(tuned.losses, losses / len(labels), atol=1e-6)
    for c, w in weights.items():
        np.testing.assert_allclose(tuned.bank.prototypes_[c], w / np.linalg.norm(w), atol=1e-5)
    np.testing.assert_array_equal(tuned.bank.counts_, bank.counts_)


def test_every_shot_is_seen_once_an_epoch():
    seen = {}
    for epoch, _, batch in Recipe(epochs=3, batch_size=4, seed=5).steps(10):
        seen.setdefault(epoch, []).extend(batch.tolist())
    assert [sorted(order) for order in seen.values()] == [list(range(10))] * 3
    assert len({tuple(order) for order in seen.values()}) == 3


def test_the_loss_falls_and_the_seed_decides():
    features, labels, bank = shots(m=60)
    a, b, c = (
        finetune_prototypes(bank, features, labels, Recipe(0.1, batch_size=16, seed=s))
        for s in (1, 1, 2)
    )
    assert len(a.losses) == 20
    assert a.losses[-1] < a.losses[0]
    np.testing.assert_array_equal(a.bank.prototypes_, b.bank.prototypes_)
    assert (a.bank.prototypes_ != c.bank.prototypes_).any()
    np.testing.assert_allclose(np.linalg.norm(a.bank.prototypes_, axis=1), 1)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"temperature": 0.0}, {"learning_rate": -1}, {"batch_size": 0}]
)
def test_parameters_out_of_range_are_explained(change):
    with pytest.raises(InputError, match="positive"):
        Recipe(**change)


def test_shots_of_another_bank_are_refused():
    features, labels, bank = shots(absent=(1,))
    with pytest.raises(InputError, match="fitted on"):
        finetune_prototypes(bank, features[:, :4], labels)
    with pytest.raises(InputError, match="fitted on"):
        finetune_prototypes(bank, features, np.ones_like(labels))


def evidence(seed=3, absent=()):
    features, labels, bank = shots(seed, absent=absent)
    rng = np.random.default_rng(seed + 1)
    return {
        "logits": rng.normal(size=(30, 4)),
        "features": rng.normal(size=(30, 5)),
        "support_features": features,
        "support_labels": labels,
    }, bank


@pytest.mark.parametrize("absent", [(), (1, 3)])
def test_the_score_is_that_of_star_with_the_finetuned_bank(absent):
    given_, bank = evidence(absent=absent)
    recipe = Recipe(temperature=0.05, epochs=5, learning_rate=0.01, batch_size=7, seed=3)
    tuned = finetune_prototypes(
        bank, given_["support_features"], given_["support_labels"], recipe
    ).bank
    result = scores.compute(
        "trustvlm_star_f",
        **given_,
        weight=0.7,
        temperature=0.05,
        epochs=5,
        learning_rate=0.01,
        batch_size=7,
        seed=3,
    )
    expected = scores.compute(
        "trustvlm_star",
        logits=given_["logits"],
        features=given_["features"],
        bank=tuned,
        weight=0.7,
        temperature=0.05,
    )
    np.testing.assert_array_equal(result.prediction, expected.prediction)
    np.testing.assert_array_equal(result.confidence, expected.confidence)


def test_a_bank_that_was_finetuned_already_is_not_started_from():
    given_, bank = evidence()
    tuned = finetune_prototypes(bank, given_["support_features"], given_["support_labels"]).bank
    a = scores.compute("trustvlm_star_f", **given_)
    b = scores.compute("trustvlm_star_f", **given_, bank=tuned)
    np.testing.assert_array_equal(a.confidence, b.confidence)


def test_weight_zero_is_msp_and_so_is_no_shot_at_all():
    given_, _ = evidence()
    msp = scores.compute("msp", logits=given_["logits"])
    zero = scores.compute("trustvlm_star_f", **given_, weight=0.0)
    given_["support_features"] = np.empty((0, 5))
    given_["support_labels"] = np.empty(0, dtype=int)
    none = scores.compute("trustvlm_star_f", **given_)
    for result in (zero, none):
        np.testing.assert_array_equal(result.prediction, msp.prediction)
        np.testing.assert_array_equal(result.confidence, msp.confidence)
