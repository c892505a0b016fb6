"""Convention `trustvlm` against what the released script printed for eight small cases."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from trustvlm import metrics
from trustvlm.exceptions import UndefinedMetricWarning

CASES = json.loads((Path(__file__).parent / "golden.json").read_text())
KEYS = {
    "aurc_x1000": ("aurc", 1000),
    "eaurc_x1000": ("eaurc", 1000),
    "augrc_discrete_x1000": ("augrc", 1000),
    "auroc": ("auroc", 1),
    "fpr95_argmin": ("fpr95", 1),
    "aupr_success": ("aupr_success", 1),
    "aupr_error": ("aupr_error", 1),
}
by_name = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def evaluate(case, convention):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return metrics.evaluate(case["score"], case["correct"], convention=convention)


def test_all_eight_cases_are_here():
    assert len(CASES) == 8


@by_name
def test_convention_trustvlm_equals_the_released_script(case):
    result = evaluate(case, "trustvlm")
    for key, (name, unit) in KEYS.items():
        expected, value = case["official"][key], getattr(result, name) * unit
        if expected is None:
            assert math.isnan(value), name
        else:
            assert value == pytest.approx(expected, abs=1e-9, rel=0), name


@by_name
def test_exact_fpr95_is_what_the_script_calls_tnr95(case):
    expected, result = case["official"]["tnr95_ge"], evaluate(case, "exact").fpr95
    # All wrong: the script's 1 has no true positive rate behind it.
    if expected is None or not any(case["correct"]):
        assert math.isnan(result)
    else:
        assert 1 - result == pytest.approx(expected, abs=1e-12)


def test_the_cases_tell_tie_orders_apart():
    """Ties in any order but that of the input would miss the recorded AURC."""
    case = next(case for case in CASES if case["name"] == "random200_ties")
    turned = [np.asarray(case[key])[::-1] for key in ("score", "correct")]
    result = 1000 * metrics.aurc(*turned, convention="trustvlm")
    assert abs(result - case["official"]["aurc_x1000"]) > 1e-3
    exact = 1000 * metrics.aurc(case["score"], case["correct"])
    assert abs(exact - case["official"]["aurc_x1000"]) > 1e-3


def test_without_ties_the_conventions_differ_in_what_is_read_off_curves_alone():
    case = next(case for case in CASES if case["name"] == "random40")
    exact, released = (evaluate(case, c).to_dict() for c in ("exact", "trustvlm"))
    for name in metrics.METRICS:
        if name not in ("fpr95", "aupr_success"):
            assert exact[name] == pytest.approx(released[name], abs=1e-15), name
