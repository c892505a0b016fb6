"""Scores that learn from unlabelled images: each property against a slow or obvious version."""

import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

import made_evidence
from trustvlm import scores
from trustvlm.exceptions import EvidenceMissingError, InputError
from trustvlm.scores import neighbour_search
from trustvlm.scores.adaptation import ShotSpread, domain_weight, fit_adapted, shift_of
from trustvlm.scores.arrays import log_odds
from trustvlm.scores.neighbour_search import EXACT, nearest_others
from trustvlm.scores.transductive import (
    Batch,
    Round,
    Weights,
    batch_weight,
    refine,
    unlabelled_logits,
)

seeds = st.integers(0, 5_000)
ADAPTED = ("auto_adapted", "auto_adapted_star")
UNLABELLED = ("auto_unlabelled", "auto_unlabelled_star")
NO_SHOTS = ("logits", "features")


# Larger than the usual case, so that a batch has something to say.
case = partial(made_evidence.case, n=60, d=16, signal=1.5)


def used(name, evidence):
    return evidence if name in ADAPTED else {key: evidence[key] for key in NO_SHOTS}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def with_copies(evidence, rows):
    """Append rows of the images again."""
    return {
        key: np.concatenate([value, value[rows]]) if key in NO_SHOTS else value
        for key, value in evidence.items()
    }


@pytest.mark.parametrize("name", ADAPTED + UNLABELLED)
@given(seed=seeds)
@settings(max_examples=10)
def test_copies_change_no_verdict_and_share_theirs(name, seed):
    evidence, _ = case(seed, shift=np.linspace(-2, 2, 16))
    before = scores.compute(name, **used(name, evidence))
    copied = with_copies(evidence, [7] * 20 + [3, 3])
    after = scores.compute(name, **used(name, copied))
    np.testing.assert_allclose(after.confidence[:60], before.confidence, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(after.prediction[:60], before.prediction)
    np.testing.assert_allclose(after.confidence[60:80], before.confidence[7], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after.confidence[80:], before.confidence[3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["auto_adapted", "auto_unlabelled"])
def test_near_copies_of_a_wrong_image_do_not_vouch_for_each_other(name):
    """Twenty lightly edited copies of one image leave it about as it is."""
    evidence, _ = case(3)
    before = scores.compute(name, **used(name, evidence)).confidence
    rng = np.random.default_rng(0)
    copied = with_copies(evidence, [7] * 20)
    copied["features"][60:] += 0.1 * rng.normal(size=(20, 16))
    rows = unit(copied["features"])
    assert 0.95 < (rows[60:] @ rows[7]).min() < 0.9999
    assert len(Batch.of(rows)) == len(Batch.of(unit(evidence["features"])))
    after = scores.compute(name, **used(name, copied)).confidence
    np.testing.assert_allclose(after[:60], before, atol=0.3)
    assert np.abs(after[60:] - after[7]).max() < 0.5


def test_a_chain_of_near_copies_is_one_image_and_others_stay_apart():
    angles = np.concatenate([np.arange(9) * 0.25, [np.pi, 4.5]])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    group = Batch.of(rows).group
    assert len(set(group[:9].tolist())) == 1
    assert len(set(group.tolist())) == 3
    assert Batch.of(rows[:1]).neighbours.shape == (1, 0)


@pytest.mark.parametrize("name", UNLABELLED + ADAPTED)
def test_many_copies_of_one_image_are_a_single_image(name):
    evidence, _ = case(1, n=1)
    one = scores.compute(name, **used(name, evidence))
    many = scores.compute(name, **used(name, with_copies(evidence, [0] * 30)))
    np.testing.assert_allclose(many.confidence, one.confidence[0], rtol=1e-9)


@given(seeds)
@settings(max_examples=15)
def test_prototypes_leave_the_image_itself_out(seed):
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(20, 12)))
    posterior = softmax(rng.normal(size=(20, 3)) * 2, axis=1)
    batch = Batch.of(rows)
    directions, u = batch.directions, len(batch)
    posterior = batch.mean_of_copies(posterior)
    k = max(4, min(16, round(0.5 * u / 3)))
    expected = np.empty((u, 3))
    for c in range(3):
        surest = np.argsort(-posterior[:, c], kind="stable")[:k]
        for i in range(u):
            others = [j for j in surest if j != i]
            mean = (posterior[others, c, None] * directions[others]).sum(axis=0)
            mass = posterior[others, c].sum()
            expected[i, c] = directions[i] @ mean / np.linalg.norm(mean) * mass / (mass + 1)
    rest = np.sort(expected, axis=1)[:, :-1]
    spread = (rest - rest.mean(axis=1, keepdims=True)).std()
    cosines = Round.of(batch, posterior).of_own(Weights(1.0, 0.0, 0.0), np.arange(u))
    np.testing.assert_allclose(cosines, expected / spread, atol=1e-6)


def test_rounds_are_averaged_with_the_start():
    """Step for step, from the weights that the documentation states."""
    evidence, _ = case(5, n=40)
    batch = Batch.of(unit(evidence["features"]))
    start = evidence["logits"]
    weights = Weights(0.5, 0.7, 0.25)
    back = np.argsort(batch.group)  # the batch's order is its own
    total, logits = log_softmax(start, axis=1), start
    for _ in range(3):
        posterior = softmax(logits, axis=1)
        here = Round.of(batch, posterior[back])
        cosines = here.of_own(Weights(1.0, 0.0, 0.0), np.arange(40))[batch.group]
        around = (batch.weights[:, :, None] * posterior[back][batch.neighbours]).sum(axis=1)
        logits = (
            start
            + 0.5 * cosines
            + 0.7 * np.log(around + 0.01)[batch.group]
            + 0.25 * np.log(posterior.mean(axis=0) + 0.125)
        )
        total += log_softmax(logits, axis=1)
    np.testing.assert_allclose(refine(start, batch, weights), total / 4, atol=1e-9)


@pytest.mark.parametrize("n", [8, 60])
def test_without_labels_the_batch_counts_by_its_images_a_class(n):
    """From the weights that the documentation states, by `refine`, which is checked above."""
    evidence, _ = case(5, n=n)
    batch, z = Batch.of(unit(evidence["features"])), evidence["logits"]
    assert len(batch) == n
    belief = (n / 4) ** 2 / ((n / 4) ** 2 + 12**2)
    tempered = 0.6**belief * z
    start = tempered - 0.6 * belief * (tempered.mean(axis=0) - tempered.mean())
    weights = Weights(belief, belief, 0.25 * belief)
    own = refine(start, batch, weights)
    untouched = log_softmax(tempered, axis=1) - log_softmax(start, axis=1)
    checked = scores.Evidence.of(logits=z, features=evidence["features"])
    np.testing.assert_allclose(unlabelled_logits(checked), own + untouched / 4, atol=1e-6)


def test_neighbours_are_the_nearest_others():
    rows = unit(np.random.default_rng(0).normal(size=(60, 12)))
    batch = Batch.of(rows)
    cosines = batch.directions @ batch.directions.T
    np.fill_diagonal(cosines, -np.inf)
    for i in range(60):
        assert set(batch.neighbours[i]) == set(np.argsort(-cosines[i])[:10])
    np.testing.assert_allclose(batch.weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(batch.around(np.full((60, 2), 0.5)), 0.5)
    assert batch.agreement(np.full((60, 2), 0.5)) == pytest.approx(0.5)


def many(n, n_classes=40, d=24, seed=0):
    rng = np.random.default_rng(seed)
    means = 1.2 * rng.normal(size=(n_classes, d))
    truth = rng.integers(n_classes, size=n)
    features = (means[truth] + rng.normal(size=(n, d))).astype(np.float32)
    logits = 2.0 * np.eye(n_classes)[truth] + rng.normal(size=(n, n_classes))
    return features, logits, truth


def test_of_many_images_nearly_the_nearest_are_found_with_less_work():
    features, _, _ = many(EXACT + 2000)
    rows = unit(features)
    neighbours, cosines = nearest_others(rows, 10)
    assert not (neighbours == np.arange(len(rows))[:, None]).any()
    np.testing.assert_allclose(cosines, np.einsum("nd,nkd->nk", rows, rows[neighbours]), atol=1e-5)
    exact = rows @ rows.T
    np.fill_diagonal(exact, -1.0)
    best = np.sort(exact, axis=1)[:, -10:]
    # Hardly farther than the nearest, and much nearer than any.
    assert (best.mean() - cosines.mean()) / (best.mean() - exact.mean()) < 0.05


def test_no_cell_is_compared_with_more_than_its_share(monkeypatch):
    """Even where all images lie in one place the work does not grow with the square."""
    monkeypatch.setattr(neighbour_search, "EXACT", 100)
    monkeypatch.setattr(neighbour_search, "_CANDIDATES", 2.0)
    rng = np.random.default_rng(0)
    rows = unit(np.eye(1, 6)[0] + 1e-3 * rng.normal(size=(900, 6)))
    sizes = []
    inner = neighbour_search.row_blocks
    monkeypatch.setattr(
        neighbour_search, "row_blocks", lambda n, m: sizes.append((n, m)) or inner(n, m)
    )
    nearest_others(rows, 5)
    assert max(columns for _, columns in sizes) <= 3 * 60


def test_cells_without_images_are_no_trouble(monkeypatch):
    monkeypatch.setattr(neighbour_search, "EXACT", 100)
    rows = np.repeat(np.eye(3), 300, axis=0)
    neighbours, cosines = nearest_others(rows, 5)
    np.testing.assert_array_equal(cosines, 1.0)
    assert (neighbours // 300 == np.arange(900)[:, None] // 300).all()


@pytest.mark.parametrize("name", UNLABELLED)
def test_many_images_in_any_order_and_with_copies(name):
    features, logits, truth = many(EXACT + 500)
    result = scores.compute(name, logits=logits, features=features)
    order = np.random.default_rng(1).permutation(len(truth))
    moved = scores.compute(name, logits=logits[order], features=features[order])
    np.testing.assert_allclose(moved.confidence, result.confidence[order], rtol=1e-4, atol=1e-4)
    rows = np.concatenate([np.arange(len(truth)), np.full(500, 7)])
    copied = scores.compute(name, logits=logits[rows], features=features[rows])
    assert np.median(np.abs(copied.confidence[: len(truth)] - result.confidence)) < 1e-3
    plain = (logits.argmax(axis=1) == truth).mean()
    assert (result.prediction == truth).mean() > plain - 1e-9


def test_memory_is_a_few_tables_of_images_and_classes():
    features, logits, _ = many(EXACT + 2000, n_classes=400)
    logits = logits.astype(np.float32)
    tracemalloc.start()
    scores.compute("auto_unlabelled", logits=logits, features=features)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    blocks = 4 * 64 * 2**20
    assert peak < 7 * logits.nbytes + blocks


def test_few_images_a_class_leave_the_logits_nearly_alone():
    assert batch_weight(3, 100) < 0.001 < 0.8 < batch_weight(1500, 100)
    evidence, _ = case(0, n=6, n_classes=4)
    few = used("auto_unlabelled", evidence)
    result = scores.compute("auto_unlabelled", **few)
    plain = log_odds(few["logits"], few["logits"].argmax(axis=1))
    assert np.corrcoef(result.confidence, plain)[0, 1] > 0.95


# In what the target differs from the shots.


def test_a_shift_of_domain_is_undone_and_other_proportions_are_not():
    shots = ShotSpread(np.zeros(6), np.eye(6)[:, :2], within=0.06, count=100)
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=(400, 6))
    away = np.array([0.1, 0.0, 3.0, 0, 0, 0])
    domain = shift_of(noise + away, shots)
    np.testing.assert_allclose(domain, away, atol=0.05)
    other_proportions = shift_of(noise + np.eye(6)[0] * 3, shots)
    assert np.abs(other_proportions).max() < 0.05
    moved = np.linspace(-3, 3, 30)
    evidence, truth = case(7, n=300, d=30, per_class=16, signal=0.7, shift=moved)
    result = {name: scores.compute(name, **evidence) for name in ("auto_star", "auto_adapted_star")}
    accuracy = {name: (v.prediction == truth).mean() for name, v in result.items()}
    assert accuracy["auto_adapted_star"] > accuracy["auto_star"]


def test_what_lies_inside_the_span_of_classes_is_the_domains_where_it_is_small():
    shots = ShotSpread(np.zeros(3), np.eye(3)[:, :1], within=2.0, count=50)
    chance = 2.0 * (1 / 50 + 1 / 50)
    outside = np.sqrt(1.0 + chance)  # so that 1 remains of its square
    for inside, part in ((0.0, 1.0), (np.sqrt(0.1), 0.5), (np.sqrt(0.2), 0.0), (3.0, 0.0)):
        images = np.tile([inside, outside, 0.0], (50, 1))
        np.testing.assert_allclose(
            shift_of(images, shots),
            np.array([part * inside, outside, 0.0]) / (1.0 + chance),
            atol=1e-9,
        )


def adaptation_of(evidence):
    checked = scores.Evidence.of(**evidence)
    return fit_adapted(checked).adapt(checked)[0]


def test_without_a_shift_shots_and_disagreeing_neighbours_silence_the_batch():
    weights = {
        k: adaptation_of(case(2, n=120, per_class=k)[0]).weights.prototypes for k in (2, 4, 16)
    }
    assert weights[2] > 1.5 * weights[4] > 5 * weights[16] > 0
    for per_class in (2, 16):
        assert adaptation_of(case(2, n=120, per_class=per_class)[0]).shift == {}
    moved = adaptation_of(case(2, n=120, per_class=16, shift=np.linspace(-2, 2, 16))[0])
    assert moved.weights.prototypes == pytest.approx(0.5 * batch_weight(120, 4), rel=0.01)
    assert np.abs(moved.shift["features"]).max() > 0.5
    # Where neighbours are of any class, images must not be smoothed over them.
    unlike = adaptation_of(case(2, n=120, per_class=2, signal=0.0)[0])
    assert unlike.shift == {}
    assert unlike.weights.prototypes < 0.75 * weights[2]
    evidence = scores.Evidence.of(**case(2, n=120, per_class=2, signal=0.0)[0])
    p = softmax(fit_adapted(evidence).auto.logits(evidence), axis=1)
    say = min(1.0, unlike.batch.agreement(unlike.batch.mean_of_copies(p)) / 0.4) ** 2
    say /= 1 + (2 / 4) ** 2
    assert unlike.weights.prototypes == pytest.approx(0.5 * say * batch_weight(120, 4), rel=1e-6)
    assert say < 0.79, "or the agreement says nothing here"


def test_a_shift_that_may_be_none_counts_in_part():
    for size in np.linspace(0.1, 1.0, 19):
        evidence, _ = case(2, n=120, per_class=16, shift=size * np.linspace(-1, 1, 16))
        checked = scores.Evidence.of(**evidence)
        learned = fit_adapted(checked)
        shots, scale = learned.shots["features"], learned.auto.spaces["features"].scale
        whole = shift_of(unit(evidence["features"]) / scale, shots)
        part = domain_weight(float(whole @ whole), shots.within)
        if 0.1 < part < 0.9:
            adaptation, _ = learned.adapt(checked)
            np.testing.assert_allclose(adaptation.shift["features"], part * whole, atol=1e-9)
            return
    pytest.fail("no shift was between the two")


def test_how_surely_it_is_another_domain_grows_with_the_shift():
    assert [domain_weight(s, 2.0) for s in (0.0, 0.02, 0.04, 0.06, 9.0)] == pytest.approx(
        [0.0, 0.0, 0.5, 1.0, 1.0]
    )
    assert domain_weight(1.0, 0.0) == 0.0


# Learned once from images of the target, then kept.


def kept(seed=0, **options):
    options = {"shift": np.linspace(-2, 2, 16), **options}
    evidence, truth = case(seed, n=120, **options)
    target = {f"target_{name}": evidence[name][:60] for name in NO_SHOTS}
    rest = {k: v[60:] if k in NO_SHOTS else v for k, v in evidence.items()}
    return {**rest, **target}, evidence, truth[60:]


@pytest.mark.parametrize("name", ADAPTED)
@given(seed=seeds)
@settings(max_examples=10)
def test_what_was_learned_once_judges_each_image_by_itself(name, seed):
    evidence, _, _ = kept(seed)
    prepared = scores.prepare(name, scores.Evidence.of(**evidence))
    assert not prepared.whole_batch
    # Among them copies of the target's images, several of one.
    again = [3, 3, 3, 5]
    for key in NO_SHOTS:
        copies = evidence[f"target_{key}"][again]
        evidence[key] = np.concatenate([evidence[key], copies])
    whole = prepared(scores.Evidence.of(**evidence))
    for i in (0, 17, 60, 63):
        alone = {k: v[i : i + 1] if k in NO_SHOTS else v for k, v in evidence.items()}
        result = scores.compute(name, **alone)
        np.testing.assert_allclose(result.confidence, whole.confidence[i : i + 1], atol=1e-9)


@pytest.mark.parametrize("name", ADAPTED)
@given(seed=seeds)
@settings(max_examples=10)
def test_the_images_that_it_learned_from_get_the_verdicts_of_their_batch(name, seed):
    """None is its own witness: it is judged by the other images, as in the batch."""
    evidence, _ = case(seed, n=60, d=24, shift=np.linspace(-2, 2, 24))
    assume(len(Batch.of(unit(evidence["features"]))) == 60)
    together = scores.compute(name, **evidence)
    target = {f"target_{piece}": evidence[piece] for piece in NO_SHOTS}
    result = scores.compute(name, **evidence, **target)
    np.testing.assert_allclose(result.confidence, together.confidence, atol=1e-6)
    order = np.random.default_rng(seed).permutation(60)
    moved = {key: value[order] for key, value in target.items()}
    again = scores.compute(name, **evidence, **moved)
    np.testing.assert_allclose(again.confidence, result.confidence, atol=1e-6)


def test_it_is_learned_from_the_target_alone_and_helps():
    gains = []
    for seed in range(6):
        evidence, _, truth = kept(seed, d=16, signal=0.8, per_class=8)
        adapted = scores.compute("auto_adapted_star", **evidence)
        plain = scores.compute("auto_star", **evidence)
        gains.append((adapted.prediction == truth).mean() - (plain.prediction == truth).mean())
    assert np.mean(gains) > 0.02


def test_a_target_of_one_image_or_class_has_an_answer():
    for options in ({"n_classes": 1}, {"n_classes": 2}):
        evidence, _, _ = kept(1, **options)
        assert np.isfinite(scores.compute("auto_adapted", **evidence).confidence).all()
    evidence, _, _ = kept(1)
    one = {k: v[:1] if k.startswith("target") else v for k, v in evidence.items()}
    plain = scores.compute("auto", **evidence)
    np.testing.assert_allclose(
        scores.compute("auto_adapted", **one).confidence, plain.confidence, atol=1e-9
    )


def test_images_of_the_target_must_fit():
    evidence, _, _ = kept(1)
    with pytest.raises(InputError, match=r"`target_features` to have 60 rows like `target_logits`"):
        scores.compute("auto_adapted", **{**evidence, "target_features": np.ones((3, 16))})
    with pytest.raises(InputError, match=r"`target_features` to have 16 columns"):
        scores.compute("auto_adapted", **{**evidence, "target_features": np.ones((60, 3))})
    del evidence["target_features"]
    with pytest.raises(EvidenceMissingError, match="target_features"):
        scores.compute("auto_adapted", **evidence)


def test_other_scores_do_not_look_at_the_target():
    evidence, _, _ = kept(1)
    checked = scores.Evidence.of(**evidence)
    without = replace(checked, **dict.fromkeys(checked.target_arrays))
    assert without.target() is None
    for name in ("auto_star", "trustvlm", "auto_unlabelled"):
        np.testing.assert_array_equal(
            scores.apply(name, checked).confidence, scores.apply(name, without).confidence
        )
    assert scores.prepare("auto_unlabelled", checked).whole_batch
    assert scores.prepare("auto_adapted", without).whole_batch
