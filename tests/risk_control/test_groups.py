"""Images that are not independent: one of each group, and what a certificate then guarantees."""

import numpy as np
import pytest
from scipy import stats

from trustvlm.decisions import certify, one_per_group
from trustvlm.exceptions import InputError


def test_one_image_of_each_group_is_drawn_whatever_the_order():
    rng = np.random.default_rng(0)
    groups = [f"scene {i}" for i in rng.integers(0, 40, 400)]
    names = [f"{i}.png" for i in range(400)]
    drawn = one_per_group(groups, names)
    assert sorted(groups[i] for i in drawn) == sorted(set(groups))
    assert (np.diff(drawn) > 0).all()
    order = rng.permutation(400)
    again = one_per_group([groups[i] for i in order], [names[i] for i in order])
    assert {names[order[i]] for i in again} == {names[i] for i in drawn}
    assert {names[i] for i in one_per_group(groups, names, seed=1)} != {names[i] for i in drawn}
    assert one_per_group([]).tolist() == []
    with pytest.raises(InputError, match="3 images and 2 groups"):
        one_per_group(["a", "b"], ["1", "2", "3"])


def test_each_image_of_a_group_is_drawn_as_often_as_another():
    places = [one_per_group(["a"] * 5 + ["b"], seed=seed)[0] for seed in range(2000)]
    assert stats.chisquare(np.bincount(places, minlength=5)).pvalue > 1e-3


def test_a_certificate_counts_groups():
    rng = np.random.default_rng(1)
    confidence, groups = rng.random(900), np.repeat(np.arange(300), 3)
    right = rng.random(900) < confidence**0.1
    eligible = confidence < 0.95
    rule = certify(confidence, right, 0.2, groups=groups, eligible=eligible)
    drawn = one_per_group(groups)
    assert rule == certify(confidence[drawn], right[drawn], 0.2, eligible=eligible[drawn])
    assert rule.n == 300
    assert rule.certified
    # Each image by itself: as without groups.
    alone = certify(confidence, right, 0.2, groups=range(900))
    assert alone == certify(confidence, right, 0.2)
    with pytest.raises(InputError, match="900 images and 3 groups"):
        certify(confidence, right, groups=[1, 2, 3])


def scenes(rng, n, frames):
    """Confidence of frames, and whether they are right: mostly as the others of their scene."""
    hard = rng.random(n)
    fails = rng.random(n) < 0.35 * hard**2
    confidence = np.repeat(1 - hard + 0.15 * rng.normal(size=n), frames)
    wrong = np.where(rng.random(n * frames) < 0.1, 0, np.repeat(fails, frames))
    return confidence + 0.02 * rng.normal(size=n * frames), wrong == 0


def test_frames_of_scenes_break_a_certificate_and_groups_hold_it():
    rng = np.random.default_rng(2)
    future_confidence, future_right = scenes(rng, 100_000, 1)
    broken = {"frames": 0, "groups": 0}
    draws = 300
    for _ in range(draws):
        confidence, right = scenes(rng, 100, 10)
        for name, groups in (("frames", None), ("groups", np.repeat(np.arange(100), 10))):
            threshold = certify(confidence, right, 0.1, groups=groups).threshold
            accepted = future_confidence >= threshold
            broken[name] += bool(accepted.any() and (~future_right[accepted]).mean() > 0.1)
    assert stats.binom.sf(broken["groups"] - 1, draws, 0.05) > 0.01
    assert broken["frames"] > 0.15 * draws


NONE = [None, float("nan"), np.float32("nan"), np.datetime64("NaT", "s"), ""]


@pytest.mark.parametrize("none", NONE)
def test_images_without_a_group_are_refused_and_not_taken_for_independent(none):
    with pytest.raises(InputError, match="image 1 has none"):
        one_per_group(["a", none, none, "b"])
    with pytest.raises(InputError, match="image 2 has none"):
        certify(np.arange(4.0), [True] * 4, groups=np.array([1.0, 1.0, np.nan, np.nan]))


def test_a_group_is_the_same_as_number_and_as_text():
    mixed = [7, "7", 7.0, np.int64(7), np.float64(7), " 7 ", "8", 7.5, "7.5"]
    assert len(one_per_group(mixed)) == 3
    names = [f"{i}.png" for i in range(60)]
    numbers = np.arange(60) // 3
    drawn = one_per_group(numbers, names).tolist()
    assert drawn == one_per_group(numbers.astype(str), names).tolist()
    assert drawn == one_per_group(numbers.astype(float), names).tolist()


def test_a_mask_of_another_length_does_not_slip_by_the_draw():
    with pytest.raises(InputError, match="eligible"):
        certify(np.arange(4.0), [True] * 4, groups=[1, 1, 2, 2], eligible=[True] * 5)
