"""The same tests and thresholds as MAPIE's Learn-then-Test on the same data."""

import warnings

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController
from mapie.risk_control.fwer_control import control_fwer

from trustvlm.decisions import METHODS, certify
from trustvlm.risk_control.tests import binomial_p_value

GRID = np.linspace(0.99, 0, 100)
OURS = {"bonferroni": "bonferroni", "bonferroni_holm": "learn_then_test"}
RISK, LEVEL = 0.1, 0.9


def mapies(confidence, correct, fwer_method, grid):
    """Its lowest valid threshold for a precision of 1 - risk, and its p-values."""
    controller = BinaryClassificationController(
        lambda x: np.stack([1 - x, x], axis=1),
        "precision",
        target_level=1 - RISK,
        confidence_level=LEVEL,
        list_predict_params=grid,
        fwer_method=fwer_method,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        controller.calibrate(confidence, correct.astype(int))
    valid = np.asarray(controller.valid_predict_params, dtype=float)
    return valid.min() if valid.size else np.nan, np.ravel(controller.p_values)


def sample(seed, n=400):
    rng = np.random.default_rng(seed)
    confidence = rng.random(n).round(int(rng.integers(2, 9)))
    return confidence, rng.random(n) < confidence ** rng.choice([0.1, 0.2, 0.5])


@pytest.mark.parametrize("seed", range(8))
def test_p_values_are_mapies_but_for_its_rounding(seed):
    """MAPIE rounds m * (1 - precision) up, so that 3.0000000000000004 errors count as 4."""
    confidence, correct = sample(seed)
    _, theirs = mapies(confidence, correct, "bonferroni", GRID)
    accepted = (confidence[:, None] >= GRID).sum(axis=0)
    errors = ((confidence[:, None] >= GRID) & ~correct[:, None]).sum(axis=0)
    some = accepted > 0
    ours = binomial_p_value(errors, accepted, RISK)[some]
    one_more = binomial_p_value(errors + 1, accepted, RISK)[some]
    # Hoeffding's bound caps what the extra error adds.
    assert ((theirs[some] > ours - 1e-9) & (theirs[some] < one_more + 1e-9)).all()
    same = np.isclose(theirs[some], ours, atol=1e-9)
    assert same.mean() > 0.5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("method", ["fixed_sequence", "bonferroni", "learn_then_test"])
def test_thresholds_are_mapies_from_the_same_p_values(seed, method):
    confidence, correct = sample(seed)
    # The first threshold of a sequence must accept enough: both stop at the first failure.
    grid = GRID[GRID <= 0.8]
    accepted = (confidence[:, None] >= grid).sum(axis=0)
    errors = ((confidence[:, None] >= grid) & ~correct[:, None]).sum(axis=0)
    p_values = binomial_p_value(errors, accepted, RISK)
    procedure = "bonferroni_holm" if method == "learn_then_test" else method
    valid = control_fwer(p_values, 1 - LEVEL, procedure)
    theirs = grid[valid].min() if len(valid) else np.nan
    ours = certify(confidence, correct, RISK, LEVEL, method=method, thresholds=grid)
    assert ours.threshold == pytest.approx(theirs, nan_ok=True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("fwer_method", OURS)
def test_thresholds_accept_at_least_what_mapies_do(seed, fwer_method):
    confidence, correct = sample(seed)
    theirs, _ = mapies(confidence, correct, fwer_method, GRID)
    ours = certify(confidence, correct, RISK, LEVEL, method=OURS[fwer_method], thresholds=GRID)
    assert np.isnan(theirs) or ours.threshold <= theirs


def test_the_default_accepts_at_least_as_much_on_average():
    """Its own threshold for every image, and one test at a time, against MAPIE's default."""
    ours, theirs = [], []
    for seed in range(30):
        confidence, correct = sample(seed)
        ours.append(certify(confidence, correct, RISK, LEVEL).coverage)
        threshold, _ = mapies(confidence, correct, "bonferroni_holm", GRID)
        theirs.append(np.mean(confidence >= threshold))
    assert np.mean(ours) > np.mean(theirs)
    assert set(OURS.values()) <= METHODS.keys()
