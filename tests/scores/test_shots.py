"""The few-shot draw: the paper's, reproducible, and fair to small classes."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustvlm.exceptions import InputError
from trustvlm.scores.few_shot import draw_shots

PAPER = [54, 24, 48, 56, 26, 2, 16, 32, 31, 25, 19, 30, 22, 37, 13, 52]


def test_the_draw_of_the_paper():
    drawn = draw_shots(np.zeros(60, dtype=int), n_classes=1, shots=16)
    assert drawn.indices.tolist() == PAPER
    assert drawn.counts.tolist() == [16]


def test_each_class_is_drawn_anew_in_file_order():
    labels = np.array([1, 0] * 60)
    drawn = draw_shots(labels, n_classes=2, shots=16)
    assert drawn.indices[:16].tolist() == [2 * i + 1 for i in PAPER]
    assert drawn.indices[16:].tolist() == [2 * i for i in PAPER]


def test_other_draws_use_their_own_seed():
    for draw in (1, 2, 77):
        random.seed(draw)
        expected = random.sample(list(range(60)), 8)
        assert draw_shots(np.zeros(60, int), 1, 8, draw=draw).indices.tolist() == expected


def test_the_global_generator_is_left_alone():
    random.seed(5)
    before = random.getstate()
    draw_shots(np.zeros(60, int), 1, 16)
    assert random.getstate() == before


def test_small_and_empty_classes_give_what_they_have():
    drawn = draw_shots([2, 0, 2, 2, 0], n_classes=4, shots=3)
    assert drawn.counts.tolist() == [2, 0, 3, 0]
    assert sorted(drawn.indices[:2]) == [1, 4]
    assert sorted(drawn.indices[2:]) == [0, 2, 3]
    nothing = draw_shots([], n_classes=2, shots=1)
    assert nothing.indices.shape == (0,)
    assert nothing.indices.dtype == nothing.counts.dtype == np.int64


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=80), st.integers(1, 20), st.integers(0, 5))
def test_against_the_plain_definition(labels, shots, draw):
    drawn = draw_shots(np.array(labels, dtype=int), 6, shots, draw=draw)
    expected = []
    for c in range(6):
        members = [i for i, label in enumerate(labels) if label == c]
        expected += random.Random(draw).sample(members, min(shots, len(members)))
    assert drawn.indices.tolist() == expected
    assert drawn.counts.tolist() == [min(shots, labels.count(c)) for c in range(6)]
    assert len(set(drawn.indices.tolist())) == len(drawn.indices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 2], 2, 1), "to lie in"),
        (([-1], 2, 1), "to lie in"),
        (([0.0], 1, 1), "to hold integers"),
        (([[0]], 1, 1), "one dimension"),
        (([0], 0, 1), "n_classes"),
        (([0], 1, 0), "shots"),
        (([0], 1, True), "shots"),
        (([0], 1, 1, -1), "draw"),
        (([0], 1, 1, 0.5), "draw"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_shots(*arguments)


@pytest.mark.parametrize("n", [16, 21, 22, 60, 85])
@pytest.mark.parametrize("draw", [0, 3])
def test_draws_are_nested_where_the_papers_are(n, draw):
    # Python samples small populations by another rule than large ones, and so does the paper:
    # within a rule fewer shots are the first of more, and the very first is always the same.
    drawn = {k: draw_shots(np.zeros(n, int), 1, k, draw=draw).indices for k in (1, 2, 4, 8, 16)}
    groups = [(1, 2, 4, 8, 16)] if n <= 21 else [(1, 2, 4), (8, 16)]
    for group in groups:
        for fewer, more in itertools.pairwise(group):
            assert drawn[fewer].tolist() == drawn[more][:fewer].tolist()
    assert len({indices[0] for indices in drawn.values()}) == 1
