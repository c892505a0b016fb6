"""Which class to label next, and what that is expected to buy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm.data_quality.label_next import Trial, coverage_gain, label_next
from trustvlm.exceptions import InputError
from trustvlm.scores import ScoreResult, compute

answers = st.lists(
    st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.booleans()), min_size=1, max_size=12
)


def arrays(pairs):
    return np.array([c for c, _ in pairs]), np.array([right for _, right in pairs])


def best_coverage(pairs, risk):
    """Every threshold in turn."""
    result = 0.0
    for threshold in {c for c, _ in pairs}:
        accepted = [right for c, right in pairs if c >= threshold]
        if accepted.count(False) <= risk * len(accepted) + 1e-12:
            result = max(result, len(accepted) / len(pairs))
    return result


class TestCoverageGain:
    @given(answers, st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), st.randoms())
    def test_it_agrees_with_every_threshold_tried(self, before, risk, random):
        after = random.sample(before, len(before))
        trial = Trial(np.arange(len(before)), arrays(before), arrays(after))
        result = coverage_gain([trial], risk=risk, n_resamples=2)
        assert result.before == pytest.approx(best_coverage(before, risk))
        assert result.after == pytest.approx(best_coverage(after, risk))

    def test_the_interval_is_that_of_resampled_images(self):
        rng = np.random.default_rng(0)
        n, risk = 60, 0.2
        before = (rng.random(n), rng.random(n) < 0.8)
        after = (before[0] + before[1], before[1])
        result = coverage_gain(
            [Trial(np.arange(n), before, after)], risk=risk, level=0.9, n_resamples=2000
        )
        drawn = []
        for _ in range(500):
            index = rng.integers(n, size=n)
            pairs = [list(zip(c[index], r[index], strict=True)) for c, r in (before, after)]
            drawn.append(best_coverage(pairs[1], risk) - best_coverage(pairs[0], risk))
        # Before and after on other images: twice the variance; one more error among the most
        # trusted changes what can be accepted by this much.
        fewer = [
            max(
                accepted / n
                for accepted in range(n + 1)
                if (~right[np.argsort(-c)[:accepted]]).sum() + 1 <= risk * accepted or not accepted
            )
            for c, right in (before, after)
        ]
        z = 1.645
        room, loss = result.before - fewer[0], result.after - fewer[1]
        low = result.gain - z * np.sqrt(2 * np.var(drawn) + loss**2)
        high = min(result.gain + z * np.sqrt(2 * np.var(drawn) + room**2), 1.0)
        assert [result.low, result.high] == pytest.approx([low, high], abs=0.06)

    def test_no_change_gains_nothing(self):
        rng = np.random.default_rng(0)
        same = (rng.random(30), rng.random(30) < 0.7)
        halves = [np.arange(30), np.arange(15)]
        trials = [Trial(h, (same[0][h], same[1][h]), (same[0][h], same[1][h])) for h in halves]
        result = coverage_gain(trials, risk=0.1)
        assert result.gain == 0.0
        assert result.low < 0.0 < result.high
        # With many images one error more changes little.
        many = (rng.permutation(3000), np.arange(3000) % 50 > 0)
        result = coverage_gain([Trial(np.arange(3000), many, many)], risk=0.1, n_resamples=9)
        assert -0.02 < result.low <= 0.0 <= result.high < 0.02


class Workplace:
    """Four classes; the shots of one are misleading. Notes what the judge is asked."""

    def __init__(self, per_class=20, bad=2, seed=0):
        rng = np.random.default_rng(seed)
        centres = 3.0 * np.eye(4, 6)
        self.labels = rng.permutation(np.repeat(np.arange(4), per_class))
        self.features = centres[self.labels] + rng.normal(size=(len(self.labels), 6))
        self.shot_labels = np.repeat(np.arange(4), 3)
        self.shots = centres[self.shot_labels] + 0.5 * rng.normal(size=(12, 6))
        self.shots[self.shot_labels == bad] = centres[0] + centres[1] + rng.normal(size=(3, 6))
        self.asked = []

    def judge(self, joined, judged):
        self.asked.append((joined.copy(), judged.copy()))
        return compute(
            "trustvlm_star",
            logits=np.zeros((len(judged), 4)),
            features=self.features[judged],
            support_features=np.concatenate([self.shots, self.features[joined]]),
            support_labels=np.concatenate([self.shot_labels, self.labels[joined]]),
        )

    def advice(self, **options):
        return label_next(self.judge, self.labels, n_classes=4, **options)


def test_the_class_with_bad_shots_comes_first_and_its_gain_is_foreseen():
    work = Workplace()
    result = work.advice(risk=0.1)
    first = result.classes[0]
    assert first.label == 2
    assert first.coverage.low <= first.coverage.gain <= first.coverage.high
    assert first.coverage.gain > 0.1
    assert result.together.gain > 0.1
    assert result.together.low < result.together.gain < result.together.high
    assert (result.n, result.risk) == (80, 0.1)
    gains = [c.aurc_gain for c in result.classes]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 0


def test_no_image_judges_itself_and_examples_are_bounded():
    work = Workplace()
    result = work.advice(examples=6)
    for joined, judged in work.asked:
        assert not set(joined) & set(judged)
        assert np.bincount(work.labels[joined], minlength=4).max(initial=0) <= 6
    assert {c.added for c in result.classes} == {6.0}
    everything = Workplace()
    assert all(c.added == 10.0 for c in everything.advice(examples=99).classes)


def test_what_is_foreseen_of_several_classes_is_measured_on_images_that_did_not_rank_them():
    work = Workplace()
    work.advice(together=2)
    alone = [judged for joined, judged in work.asked if len(set(work.labels[joined])) == 1]
    at_once = [judged for joined, judged in work.asked if len(set(work.labels[joined])) == 2]
    assert at_once, "two classes were tried at once"
    size = len(alone[0])
    assert all(len(judged) < size for judged in at_once)


def test_progress_counts_judgements_up_to_what_is_needed():
    text_logits = []
    work = Workplace()
    work.advice(
        candidates=3, repeats=2, progress=lambda done, most: text_logits.append((done, most))
    )
    assert [done for done, _ in text_logits] == list(range(1, len(work.asked)))
    assert {most for _, most in text_logits} == {2 * (3 + 3)}
    assert text_logits[-1][0] <= text_logits[-1][1]


def test_the_same_seed_gives_the_same_advice():
    assert Workplace().advice() == Workplace().advice()
    assert Workplace().advice() != Workplace().advice(seed=1)


def test_nothing_is_advised_where_nothing_helps():
    """All labels are right and alike in confidence, whatever joins."""
    labels = np.repeat([0, 1], 10)

    def judge(joined, judged):
        return ScoreResult(labels[judged], np.ones(len(judged)))

    result = label_next(judge, labels, n_classes=2)
    assert result.classes == ()
    assert result.together is None
    assert result.n_together == 0


def test_classes_with_one_labelled_image_are_not_tried():
    work = Workplace()
    keep = np.concatenate([np.flatnonzero(work.labels != 2), np.flatnonzero(work.labels == 2)[:1]])
    work.labels, work.features = work.labels[keep], work.features[keep]
    assert 2 not in {c.label for c in work.advice().classes}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"risk": 0.0}, "risk"),
        ({"examples": 0}, "examples"),
        ({"together": 0}, "together"),
        ({"candidates": 0}, "candidates"),
        ({"repeats": 0}, "repeats"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Workplace().advice(**options)


def test_too_few_labelled_images_are_an_error_that_says_so():
    with pytest.raises(InputError, match="at least two"):
        label_next(Workplace().judge, [0, 1, 2], n_classes=4)
