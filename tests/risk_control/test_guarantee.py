"""Over many draws of the calibration set, the risk is exceeded no more often than promised."""

import numpy as np
import pytest
from scipy import stats

from trustvlm.decisions import METHODS, certify

RISK, LEVEL, DRAWS = 0.1, 0.9, 600
GRID = np.linspace(0, 1, 20_001)[1:]


def hovering(v):
    """Wrong a little more and a little less often than wanted, in turns."""
    return RISK * (1 + 0.9 * np.sign(np.sin(40 * v)))


def overconfident_top(v):
    return np.where(v < 0.1, 0.5, 0.02 + 0.5 * v**3)


def barely_too_high(v):
    return np.full_like(v, RISK * 1.02)


def rising(v):
    return 0.4 * v**1.5


POPULATIONS = (hovering, overconfident_top, barely_too_high, rising)


def exceeded(population, n, rng, *, values=None, **settings):
    """Share of draws whose certified threshold has too high a risk; the draws' mean coverage.

    Images are places v in (0, 1], the most trusted first; `values` is how many distinct
    confidences there are, None for all different.
    """
    step = GRID if values is None else np.ceil(GRID * values) / values
    risk = np.cumsum(population(GRID)) / np.arange(1, len(GRID) + 1)
    bad, coverage = 0, 0.0
    for _ in range(DRAWS):
        v = rng.random(n)
        wrong = rng.random(n) < population(v)
        position = v if values is None else np.ceil(v * values) / values
        result = certify(-position, ~wrong, RISK, LEVEL, **settings)
        if result.certified:
            share = np.searchsorted(step, -result.threshold, side="right")
            bad += risk[min(share, len(GRID)) - 1] > RISK + 1e-3
            coverage += share / len(GRID)
    return bad, coverage / DRAWS


def most_allowed(level=LEVEL):
    return stats.binom.ppf(0.9999, DRAWS, 1 - level)


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("n", [60, 250])
def test_the_risk_is_exceeded_no_more_often_than_stated(population, n):
    bad, _ = exceeded(population, n, np.random.default_rng(n))
    assert bad <= most_allowed()


@pytest.mark.parametrize("population", [hovering, overconfident_top])
@pytest.mark.parametrize("values", [7, 40, 150])
def test_ties_keep_the_guarantee(population, values):
    bad, _ = exceeded(population, 150, np.random.default_rng(values), values=values)
    assert bad <= most_allowed()


# Confidences of three values, always right, always wrong and half wrong: to accept the second one
# as well is just too risky. A rule that accepted one image more than it tested exceeded the risk
# in two to three times as many draws as stated. (shares), n, risk, level.
THREE_VALUES = [
    ((0.8, 0.089, 0.111), 35, 0.1, 0.95),
    ((0.8, 0.089, 0.111), 27, 0.1, 0.9),
    ((0.8, 0.089, 0.111), 53, 0.1, 0.99),
    ((0.9, 0.0474, 0.0526), 65, 0.05, 0.95),
    ((0.95, 0.0194, 0.0306), 164, 0.02, 0.95),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("shares", "n", "risk", "level"), THREE_VALUES)
def test_scores_of_three_values_keep_the_guarantee(shares, n, risk, level, method):
    rng = np.random.default_rng(n)
    draws = 4000
    risks = np.cumsum(np.multiply(shares, [0, 1, 0.5])) / np.cumsum(shares)
    assert risks[0] < risk < risks[1]
    value = rng.choice(3, size=(draws, n), p=shares)
    correct = rng.random((draws, n)) >= np.array([0, 1, 0.5])[value]
    # Draws that have as many images of each kind have one threshold: the order does not matter.
    kinds, draw = np.unique(np.sort(2 * value + correct, axis=1), axis=0, return_inverse=True)
    thresholds = [
        certify(-(kind // 2), kind % 2 == 1, risk, level, method=method).threshold for kind in kinds
    ]
    lowest = np.array(thresholds)[draw.ravel()]
    too_much = np.count_nonzero(lowest <= -1)
    assert np.isfinite(lowest).mean() > 0.1 or method != "fixed_sequence"
    assert too_much <= stats.binom.ppf(0.9999, draws, 1 - level)


def just_too_risky(rng):
    """Shares and risks of parts, most trusted first, and which are ties; n, risk and level."""
    risk, level = rng.choice([0.05, 0.1, 0.3]), rng.choice([0.8, 0.95])
    n = min(360, int(np.log(1 - level) / np.log(1 - risk) * rng.choice([1.1, 1.6, 3, 11.5])))
    parts = int(rng.integers(2, 7))
    shares = rng.dirichlet(np.ones(parts)) + np.r_[rng.choice([0, 4]), np.zeros(parts - 1)]
    shares /= shares.sum()
    risks = rng.choice([0, 0.5, 1, risk / 2, 2 * risk], parts)
    at = rng.integers(1, parts + 1)
    # Scaled so that the first parts together are just too risky, or raised where that is not so.
    scale = risk * 1.001 * shares[:at].sum() / max(1e-9, shares[:at] @ risks[:at])
    risks[:at] = np.minimum(1, scale * risks[:at])
    lack = risk * 1.001 * shares[:at].sum() - shares[:at] @ risks[:at]
    risks[:at] += lack / max(1e-9, shares[:at] @ (1 - risks[:at])) * (1 - risks[:at])
    return shares, risks, rng.random(parts) < rng.choice([0, 0.5, 1]), n, risk, level


@pytest.mark.parametrize("seed", range(12))
def test_populations_that_are_just_too_risky_somewhere_keep_the_guarantee(seed):
    """The short form of benchmarks/certificate_validity.py."""
    rng = np.random.default_rng(seed)
    shares, risks, tied, n, risk, level = just_too_risky(rng)
    edges = np.cumsum(shares)
    draws, bad = 500, 0
    for _ in range(draws):
        v = rng.random(n)
        part = np.minimum(np.searchsorted(edges, v), len(edges) - 1)
        position = np.where(tied[part], edges[part], v)
        result = certify(-position, rng.random(n) >= risks[part], risk, level)
        if result.certified:
            # A tie is accepted where the threshold reaches its end.
            reached = -result.threshold
            partly = np.clip(reached - (edges - shares), 0, shares)
            share = np.where(tied, shares * (edges <= reached), partly)
            bad += share @ risks > risk * share.sum() * (1 + 1e-6)
    assert bad <= stats.binom.ppf(1 - 1e-5, draws, 1 - level)


@pytest.mark.parametrize(
    ("risk_at", "n"), [(lambda v: 0.02 * v, 30), (lambda v: np.where(v < 0.2, 0.01, 0.5), 80)]
)
def test_as_many_images_as_needed_are_mostly_enough(risk_at, n):
    rng = np.random.default_rng(n)
    enough = failed = 0
    while failed < 40:
        v = rng.random(n)
        right = rng.random(n) >= risk_at(v)
        result = certify(-v, right, RISK)
        if result.certified:
            continue
        failed += 1
        assert np.isfinite(result.n_needed)
        new = rng.random(int(result.n_needed))
        judged = np.r_[right, rng.random(len(new)) >= risk_at(new)]
        enough += certify(-np.r_[v, new], judged, RISK).certified
    assert enough >= 0.7 * failed


def test_more_images_are_said_not_to_help_where_the_best_are_wrong_too_often():
    rng = np.random.default_rng(4)
    said = 0
    for _ in range(40):
        result = certify(rng.random(400), rng.random(400) >= 4 * RISK, RISK)
        said += result.n_needed == np.inf
        assert not result.certified
    assert said >= 30


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_guarantee(method):
    bad, coverage = exceeded(rising, 200, np.random.default_rng(5), method=method)
    assert bad <= most_allowed()
    assert coverage > 0.05


def test_the_guarantee_is_tight_where_the_risk_is_just_too_high():
    """A test that certified next to nothing would keep every promise."""
    bad, _ = exceeded(barely_too_high, 250, np.random.default_rng(1))
    assert bad >= DRAWS * (1 - LEVEL) / 4


def test_reading_the_threshold_off_the_calibration_set_would_break_it():
    """The same populations catch a rule that looks at the observed risk alone."""
    rng = np.random.default_rng(2)
    bad = 0
    for _ in range(300):
        v = np.sort(rng.random(250))
        errors = np.cumsum(rng.random(250) < rising(v))
        last = np.flatnonzero(errors <= RISK * np.arange(1, 251))
        bad += last.size > 0 and 0.4 * v[last[-1]] ** 1.5 / 2.5 > RISK
    assert bad > 300 * (1 - LEVEL) * 2


def test_the_coverage_bound_holds():
    rng = np.random.default_rng(3)
    below = certified = 0
    for _ in range(DRAWS):
        v = rng.random(200)
        result = certify(-v, rng.random(200) >= rising(v), RISK, LEVEL)
        certified += result.certified
        below += result.certified and -result.threshold < result.coverage_bound
    assert certified > DRAWS / 2
    assert below <= most_allowed()
