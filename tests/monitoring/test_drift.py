"""Conformal p-values, bets against them, and the monitor that raises the alarm."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustvlm.decisions import DriftMonitor
from trustvlm.exceptions import InputError
from trustvlm.monitoring.martingale import (
    BOTH_SIDES,
    LOW_SIDE,
    JumperMartingale,
    online_p_values,
)

values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), max_size=12)


class TestPValues:
    @given(values, values, st.integers(0, 99))
    def test_online_ones_are_among_all_before(self, calibration, new, seed):
        found, seen = online_p_values(sorted(calibration), new, np.random.default_rng(seed))
        uniform = np.random.default_rng(seed).random(len(new))
        before = list(calibration)
        for p, v, u in zip(found, new, uniform, strict=True):
            lower, equal = sum(b < v for b in before), sum(b == v for b in before)
            assert p == pytest.approx((lower + u * (equal + 1)) / (len(before) + 1))
            before.append(v)
        assert seen == sorted(before)

    def test_online_ones_are_uniform_and_uncorrelated_for_exchangeable_values(self):
        """With many ties, which only the smoothing makes uniform."""
        rng = np.random.default_rng(0)
        found = []
        for _ in range(2000):
            drawn = rng.integers(4, size=9).astype(float)
            found.append(online_p_values(sorted(drawn[:4].tolist()), drawn[4:], rng)[0])
        table = np.array(found)
        for column in table.T:
            ordered = np.sort(column)
            gap = np.abs(ordered - (np.arange(2000) + 0.5) / 2000).max()
            assert gap < 1.63 / math.sqrt(2000)  # Kolmogorov's 1 % point
        assert np.abs(np.corrcoef(table.T) - np.eye(5)).max() < 0.09  # four standard errors

    def test_nan_is_refused(self):
        with pytest.raises(InputError, match="values"):
            online_p_values([0.1], [math.nan], np.random.default_rng(0))


def every_history(p_list, slopes):
    """Capital as a plain mixture over when each part wakes and which bets it moves through."""
    n, jump, bets = len(p_list), 0.01, len(slopes)
    total = 1.0 / (n + 1)  # never woke
    for wakes in range(n):
        prior = 1.0 / ((wakes + 1) * (wakes + 2))
        for path in itertools.product(range(bets), repeat=n - wakes):
            weight, previous = prior / bets, None
            for k, p in zip(path, p_list[wakes:], strict=True):
                if previous is not None:
                    weight *= jump / bets + (1 - jump) * (k == previous)
                weight *= 1 + slopes[k] * (p - 0.5)
                previous = k
            total += weight
    return total


class TestBettor:
    @settings(max_examples=30)
    @given(st.lists(st.floats(0, 1), max_size=4), st.sampled_from([BOTH_SIDES, LOW_SIDE]))
    def test_the_capital_is_the_mixture_written_out(self, p_list, slopes):
        found = JumperMartingale(slopes).after(p_list).capital
        assert found == pytest.approx(every_history(p_list, slopes))

    @given(st.lists(st.floats(0, 1), max_size=30))
    def test_a_fair_game_whatever_came_before(self, p_list):
        """The next capital is linear in p: its mean over [0, 1] is that at 0 and 1 averaged."""
        martingale = JumperMartingale().after(p_list)
        mean = (martingale.after([0.0]).capital + martingale.after([1.0]).capital) / 2
        assert mean == pytest.approx(martingale.capital)
        assert martingale.capital >= 1 / (len(p_list) + 1) - 1e-12
        assert martingale.n == len(p_list)

    def test_the_peak_is_the_largest_capital_on_the_way(self):
        p_list = [0.01] * 20 + [0.9, 0.2, 0.6] * 10
        on_the_way = [
            JumperMartingale().after(p_list[:k]).log_capital for k in range(len(p_list) + 1)
        ]
        assert JumperMartingale().after(p_list).peak == pytest.approx(max(on_the_way))

    def test_it_rarely_becomes_rich_by_luck(self):
        """Ville: a capital of 20 at any of 500 times has a chance of at most 1 in 20."""
        rng = np.random.default_rng(0)
        rich = [JumperMartingale().after(rng.random(500)).peak >= math.log(20) for _ in range(400)]
        assert np.mean(rich) <= 0.05

    @pytest.mark.parametrize("quiet", [0, 2000])
    def test_a_change_is_found_early_and_late(self, quiet):
        rng = np.random.default_rng(1)
        martingale = JumperMartingale().after(rng.random(quiet))
        assert martingale.peak < math.log(100)
        assert martingale.after(0.3 * rng.random(80)).peak > math.log(1e4)

    def test_huge_capital_does_not_overflow(self):
        martingale = JumperMartingale().after([0.0] * 3000)
        assert martingale.log_capital > 1900
        assert martingale.capital == math.inf


def normal(n, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=n) + shift


class TestDriftMonitor:
    def started(self, n=60, **options):
        calibration = {"confidence": normal(n), "typicality": normal(n, seed=1)}
        return DriftMonitor.start(calibration, **options)

    def batch(self, n, shift=0.0, seed=5):
        return {"confidence": normal(n, shift, seed), "typicality": normal(n, seed=seed + 100)}

    @pytest.mark.parametrize("shift", [-1.5, 1.5])
    def test_a_change_of_one_stream_in_either_direction_is_found(self, shift):
        quiet = self.started().after(self.batch(300))
        assert not quiet.drifted
        alarmed = quiet.after(self.batch(100, shift, seed=6))
        assert alarmed.drifted
        assert 300 < alarmed.streams["confidence"].drifted_after < 400
        assert alarmed.streams["typicality"].drifted_after is None
        again = alarmed.after(self.batch(300, seed=7))
        assert again.drifted, "an alarm stays"
        assert again.streams["confidence"].drifted_after < 400

    def test_false_alarms_keep_to_the_bound(self):
        """400 runs of ordinary images at a bound of 1 in 20, streams depending on each other."""
        false = 0
        for seed in range(400):
            values = normal(150, seed=1000 + seed)
            both = {"a": values, "b": -values + 0.1 * normal(150, seed=seed)}
            start = {name: array[:30] for name, array in both.items()}
            monitor = DriftMonitor.start(start, false_alarm=0.05, seed=seed)
            false += monitor.after({k: array[30:] for k, array in both.items()}).drifted
        assert false / 400 <= 0.05

    def test_on_the_low_side_only_a_fall_is_drift(self):
        """Calibrated too low, as on held-out shots, the bound still holds."""
        false = 0
        for seed in range(200):
            start = {"typicality": normal(30, -0.3, seed)}
            monitor = DriftMonitor.start(start, false_alarm=0.05, low_side=["typicality"])
            false += monitor.after({"typicality": normal(200, 0.0, 500 + seed)}).drifted
        assert false / 200 <= 0.05
        monitor = self.started(low_side=["confidence"])
        assert not monitor.after(self.batch(200, 1.5)).drifted
        assert monitor.after(self.batch(200, -1.5)).drifted

    def test_sorted_batches_are_no_drift(self):
        batch = {name: np.sort(array) for name, array in self.batch(300).items()}
        assert not self.started().after(batch).drifted

    def test_the_state_survives_json_and_goes_on_as_if_never_stopped(self):
        first = self.started().after(self.batch(40))
        stored = DriftMonitor.from_dict(json.loads(json.dumps(first.to_dict())))
        assert stored == first
        assert stored.after(self.batch(40, seed=8)) == first.after(self.batch(40, seed=8))
        assert first.n == 40
        assert first.alarm_at == pytest.approx(2e4)

    def test_the_same_seed_gives_the_same_result_and_another_one_another(self):
        runs = [self.started(seed=seed).after(self.batch(40)) for seed in (0, 0, 1)]
        martingales = [run.streams["confidence"].martingale for run in runs]
        assert martingales[0] == martingales[1] != martingales[2]

    def test_medians_tell_the_direction(self):
        stream = self.started().after(self.batch(50, shift=-3.0)).streams["confidence"]
        assert stream.usual == pytest.approx(np.median(normal(60)))
        assert stream.lately == pytest.approx(np.median(normal(50, -3.0, 5)))
        assert math.isnan(self.started().streams["confidence"].lately)

    def test_an_empty_batch_changes_nothing_but_is_allowed(self):
        empty = {"confidence": [], "typicality": []}
        assert self.started().after(empty).streams == self.started().streams

    @pytest.mark.parametrize(
        ("calibration", "options", "message"),
        [
            ({}, {}, "at least one stream"),
            ({"a": []}, {}, "values of `a`"),
            ({"a": [math.nan]}, {}, "`a`"),
            ({"a": [1.0]}, {"false_alarm": 0.0}, "false_alarm"),
        ],
    )
    def test_a_wrong_start_is_refused(self, calibration, options, message):
        with pytest.raises(InputError, match=message):
            DriftMonitor.start(calibration, **options)

    @pytest.mark.parametrize(
        "batch",
        [
            {"confidence": [1.0]},
            {"confidence": [1.0], "typicality": [1.0, 2.0]},
            {"confidence": [1.0], "typicality": [math.inf]},
        ],
    )
    def test_a_wrong_batch_is_refused(self, batch):
        with pytest.raises(InputError):
            self.started().after(batch)

    def test_a_broken_state_is_refused(self):
        state = self.started().to_dict()
        del state["streams"]["confidence"]["bettor"]
        with pytest.raises(InputError, match="bettor"):
            DriftMonitor.from_dict(state)
