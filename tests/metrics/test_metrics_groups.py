"""Metrics by group: the same as of each group alone, with the worst and the gap."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from trustvlm import metrics
from trustvlm.exceptions import InputError, UndefinedMetricWarning
from trustvlm.metrics.info import METRIC_INFO

rng = np.random.default_rng(0)
CONFIDENCE = rng.random(300).round(1)
CORRECT = rng.random(300) < CONFIDENCE
GROUPS = rng.choice(["night", "day", "dusk"], 300)


@pytest.mark.parametrize("name", METRIC_INFO)
def test_each_group_has_the_value_of_its_own_samples(name):
    result = metrics.by_group(CONFIDENCE, CORRECT, GROUPS, name)
    function = getattr(metrics, name)
    assert list(result.values) == ["day", "dusk", "night"] == list(result.n)
    for group, value in result.values.items():
        assert value == function(CONFIDENCE[group == GROUPS], CORRECT[group == GROUPS])
        assert result.n[group] == (group == GROUPS).sum()
    assert result.overall == function(CONFIDENCE, CORRECT)
    ordered = sorted(
        result.values, key=result.values.get, reverse=METRIC_INFO[name].higher_is_better
    )
    assert result.worst == ordered[-1]
    assert result.gap == abs(result.values[ordered[0]] - result.values[ordered[-1]])


@pytest.mark.parametrize("name", ["accuracy", "aurc", "augrc", "nll"])
def test_weights_go_with_their_samples(name):
    weight = rng.random(300) * (GROUPS != "dusk")
    with pytest.warns(UndefinedMetricWarning, match=r"undefined in 1 of 3 groups: dusk\."):
        result = metrics.by_group(CONFIDENCE, CORRECT, GROUPS, name, sample_weight=weight)
    day = GROUPS == "day"
    function = getattr(metrics, name)
    expected = function(CONFIDENCE[day], CORRECT[day], sample_weight=weight[day])
    assert result.values["day"] == expected
    assert math.isnan(result.values["dusk"])
    assert result.n["dusk"] == (GROUPS == "dusk").sum()


def test_groups_of_one_kind_take_no_part():
    with pytest.warns(
        UndefinedMetricWarning, match=r"^AUROC is undefined in 1 of 2 groups: 7\.$"
    ) as w:
        result = metrics.by_group([0.9, 0.8, 0.7], [1, 0, 1], [3, 3, 7], "auroc")
    assert [warning.filename for warning in w] == [__file__]
    assert (result.worst, result.gap) == (3, 0.0)
    with pytest.warns(UndefinedMetricWarning):
        result = metrics.by_group([0.9, 0.8], [1, 1], [3, 7], "auroc")
    assert result.worst is None
    assert math.isnan(result.gap)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = metrics.by_group([], [], [])
    assert (result.values, result.n, result.worst) == ({}, {}, None)
    assert math.isnan(result.overall)
    assert math.isnan(result.gap)


def test_the_first_of_equally_bad_groups():
    assert metrics.by_group([1, 2], [0, 0], ["b", "a"]).worst == "a"


def test_kinds_of_groups():
    for groups in (["a", "b"], np.array(["a", "b"], dtype=object), pd.Series(["a", "b"])):
        assert list(metrics.by_group([1, 2], [0, 1], groups).values) == ["a", "b"]
    assert list(metrics.by_group([1, 2], [0, 1], [True, False]).values) == [False, True]
    assert list(metrics.by_group([1, 2], [0, 1], pd.Categorical(["z", "y"])).values) == ["y", "z"]
    for bad in (["a", None], [1.0, 2.0], [math.nan, "a"], [None, None], pd.Series(["a", pd.NA])):
        with pytest.raises(InputError, match="`groups` to be all texts"):
            metrics.by_group([1, 2], [0, 1], bad)
    with pytest.raises(InputError, match=r"`groups` to have shape \(2,\)"):
        metrics.by_group([1, 2], [0, 1], ["a"])


def test_what_is_refused():
    with pytest.raises(InputError, match=r"`metric` to be among accuracy, .*nll, but got 'ece'"):
        metrics.by_group([1, 2], [0, 1], [1, 2], "ece")
    with pytest.raises(InputError, match=r"no `sample_weight` for auroc.*aurc, augrc and nll take"):
        metrics.by_group([1, 2], [0, 1], [1, 2], "auroc", sample_weight=[1, 1])
    for name in ("nll", "eaugrc"):
        with pytest.raises(InputError, match="the released script has no"):
            metrics.by_group([1, 0], [0, 1], [1, 2], name, convention="trustvlm")
    with pytest.raises(InputError, match="`probability` to lie in"):
        metrics.by_group([1, 2], [0, 1], [1, 2], "nll")
    released = metrics.by_group([1, 1, 2], [1, 0, 1], [1, 1, 2], convention="trustvlm")
    assert dict(released.values) == {1: 0.25, 2: 0.0}
