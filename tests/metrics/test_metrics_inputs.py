"""What the metrics accept, what they refuse and how, and where they have no value."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from trustvlm import metrics
from trustvlm.exceptions import InputError, UndefinedMetricWarning

DEGENERATE = [
    ([], [], {*metrics.METRICS, "eaugrc"}, "there are no samples"),
    ([0.1, 0.2], [1, 1], {"auroc", "fpr95", "aupr_error"}, "every sample is correct"),
    ([0.1, 0.2], [0, 0], {"auroc", "fpr95", "aupr_success"}, "every sample is wrong"),
]


@pytest.mark.parametrize(("confidence", "correct", "names", "reason"), DEGENERATE)
def test_undefined_metrics_are_nan_with_a_warning(confidence, correct, names, reason):
    for name in (*metrics.METRICS, "eaugrc"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = getattr(metrics, name)(confidence, correct)
        assert math.isnan(value) == (name in names), name
        assert [w.category for w in caught] == [UndefinedMetricWarning] * (name in names)
        assert all(str(w.message).endswith(f"is undefined: {reason}.") for w in caught)
        assert all(w.filename == __file__ for w in caught), "the warning points at the caller"


@pytest.mark.parametrize(("confidence", "correct", "names", "reason"), DEGENERATE)
def test_evaluate_warns_once_for_all(confidence, correct, names, reason):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = metrics.evaluate(confidence, correct)
    values = result.to_dict()
    assert {name for name in (*metrics.METRICS, "eaugrc") if math.isnan(values[name])} == names
    (warning,) = caught
    assert str(warning.message).endswith(f"are undefined: {reason}.")
    assert warning.filename == __file__
    assert result.n == len(confidence)


def test_the_warning_names_the_metrics():
    with pytest.warns(UndefinedMetricWarning, match="^AUROC, FPR95 and AUPR-error are undefined"):
        metrics.evaluate([0.1], [1])


def test_defined_at_the_edges():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        right, wrong = metrics.evaluate([0.3], [1]), metrics.evaluate([0.3, 0.1], [0, 0])
        released = metrics.evaluate([0.3, 0.1], [0, 0], "trustvlm")
    assert (right.aurc, right.eaurc, right.augrc, right.accuracy) == (0.0, 0.0, 0.0, 1.0)
    assert right.aupr_success == 1.0
    assert (wrong.aurc, wrong.eaurc, wrong.augrc, wrong.accuracy) == (1.0, 0.0, 0.75, 0.0)
    assert wrong.aupr_error == 1.0
    assert math.isnan(released.eaurc)


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.1, math.nan], [1, 0], r"`confidence` to be finite, but 1 of 2 .* at index 1 \(nan\)"),
        ([math.inf, 1, -math.inf], [1, 1, 1], r"2 of 3 values .* first at index 0 \(inf\)"),
        ([0.1, 0.2], [1], r"`correct` to have shape \(2,\) like `confidence`, but got \(1,\)"),
        ([], [1], r"shape \(0,\)"),
        ([0.1], [], r"shape \(1,\)"),
        ([[0.1]], [1], r"shape \(1, 1\)"),
        (0.1, 1, r"shape \(\)"),
        ([0.1], [[1]], r"but got \(1, 1\)"),
        ([0.1, 0.2, 0.3], [1, 2, 3], r"`correct` to be .* but 2 of 3 .* first at index 1 \(2\)"),
        ([0.1], [0.5], "1 of 1"),
        ([0.1], [math.nan], r"first at index 0 \(nan\)"),
        ([0.1], ["a"], "`correct` to hold booleans or 0 and 1, but got dtype <U1"),
        ([0.1, 0.2], [True, None], r"first at index 1 \(None\)"),
        ([0.1, 0.2], [True, "no"], "`correct`"),
        (["a"], [1], "`confidence` to be a one-dimensional array of real numbers"),
        ([None], [1], "dtype object"),
        ([1j], [1], "dtype complex128"),
        ([[1, 2], [3]], [1, 0], "`confidence` to be a one-dimensional array"),
        (np.ma.array([0.1, 0.2], mask=[0, 1]), [1, 0], "1 of 2 values are masked.*index 1"),
        ([0.1, 0.2], np.ma.array([1, 0], mask=[1, 0]), "`correct`.*masked"),
    ],
)
def test_bad_input_is_explained(confidence, correct, message):
    for function in (metrics.evaluate, metrics.aurc, metrics.risk_coverage, metrics.bootstrap):
        with pytest.raises(InputError, match=message):
            function(confidence, correct)


def test_unknown_convention():
    for function in (metrics.evaluate, metrics.fpr95, metrics.risk_coverage):
        with pytest.raises(InputError, match="`convention` to be exact or trustvlm, but got 'x'"):
            function([0.1], [1], convention="x")


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64]
)
def test_types_of_confidence(dtype):
    confidence, correct = np.array([3, 1, 2, 0], dtype=dtype), [True, False, False, True]
    expected = metrics.evaluate([3, 1, 2, 0], correct)
    assert metrics.evaluate(confidence, correct) == expected
    assert metrics.evaluate(list(confidence), correct) == expected
    assert metrics.evaluate(pd.Series(confidence, index=[7, 7, 8, 9]), correct) == expected


@pytest.mark.parametrize(
    "correct",
    [
        [1, 0, 0, 1],
        (1.0, 0.0, 0.0, 1.0),
        np.array([1, 0, 0, 1], dtype=np.uint8),
        np.array([True, False, False, True], dtype=object),
        pd.Series([True, False, False, True], dtype="boolean"),
    ],
)
def test_types_of_correct(correct):
    expected = metrics.evaluate([3, 1, 2, 0], [True, False, False, True])
    assert metrics.evaluate([3, 1, 2, 0], correct) == expected


def test_missing_value_in_a_data_frame_is_refused():
    with pytest.raises(InputError, match=r"first at index 1 \(<NA>\)"):
        metrics.aurc([0.1, 0.2], pd.Series([True, None], dtype="boolean"))


def test_neighbouring_scores_stay_distinct():
    big = np.array([2**53, 2**53 + 1], dtype=np.int64)
    assert metrics.auroc(big, [0, 1]) == 1.0
    assert metrics.auroc(np.array([2**63, 2**63 + 1], dtype=np.uint64), [0, 1]) == 1.0
    lowest = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert metrics.auroc(lowest, [0, 1]) == 1.0
    for dtype in (np.float16, np.float32, np.float64):
        one = np.ones(1, dtype=dtype)
        near = np.r_[one, np.nextafter(one, 2 * one)]
        assert metrics.auroc(near, [0, 1]) == 1.0
        assert metrics.risk_coverage(near, [0, 1]).thresholds.size == 2


def test_signed_zeros_are_tied():
    assert metrics.auroc([0.0, -0.0], [1, 0]) == 0.5


def test_a_masked_array_without_masked_values_is_an_array():
    assert metrics.auroc(np.ma.array([0.1, 0.9]), np.ma.array([0, 1], mask=[0, 0])) == 1.0


def test_input_is_left_as_it_was():
    confidence, correct = np.arange(20) % 7 / 7, np.arange(20) % 2
    confidence.setflags(write=False)
    correct.setflags(write=False)
    metrics.evaluate(confidence, correct)
    metrics.bootstrap(confidence, correct, n_resamples=5)
    assert metrics.evaluate(confidence[::-1], correct[::-1]) == metrics.evaluate(
        confidence, correct
    )
