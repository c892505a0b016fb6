"""Confusion pairs against a plain recount."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from evaluations import empty_evaluation, make_evaluation
from trustvlm.report.sections import Confusion, confusions


def test_pairs_agree_with_a_plain_recount():
    evaluation = make_evaluation(n=300, noise=2.0)
    own, names = evaluation.results["trustvlm"], evaluation.class_names
    pairs = Counter(
        (names[t], names[p])
        for t, p in zip(evaluation.labels, own.prediction, strict=True)
        if t != p
    )
    pairs_shown = confusions(evaluation, pairs=99)
    assert {(c.truth, c.label): c.count for c in pairs_shown} == pairs
    assert [c.count for c in pairs_shown] == sorted(pairs.values(), reverse=True)
    for c in pairs_shown:
        assert c.of == (evaluation.labels == names.index(c.truth)).sum()
        assert c.back == pairs[c.label, c.truth]
        assert 1 <= len(c.images) <= 3
        assert len(c.images) == min(3, c.count)


def test_the_most_trusted_images_are_shown():
    evaluation = make_evaluation(n=300, noise=2.0)
    own = evaluation.results["trustvlm"]
    first = confusions(evaluation, pairs=1)[0]
    names = evaluation.class_names
    members = (evaluation.labels == names.index(first.truth)) & (
        own.prediction == names.index(first.label)
    )
    expected = np.sort(own.confidence[members])[::-1][:3]
    assert [image.confidence for image in first.images] == expected.tolist()
    assert all(image.path in evaluation.verdicts.column("path") for image in first.images)


def test_where_nothing_is_confused_there_is_nothing():
    assert confusions(make_evaluation(right=True)) == ()
    assert confusions(empty_evaluation()) == ()
    assert len(confusions(make_evaluation(n=300, noise=2.0))) <= 8


def test_how_often_in_words():
    pair = Confusion("cat", "dog", 3, 12, 0, ())
    assert pair.sentence == "3 images of 12 (25\u00a0%)"
    assert replace(pair, back=2).sentence.endswith("; the other way round 2")
