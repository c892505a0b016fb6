"""Metrics fed batch by batch equal the metric of all samples at once."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustvlm import metrics
from trustvlm.adapters import AUGRC, AURC, SelectiveMetric
from trustvlm.adapters.torchmetrics import torchmetric
from trustvlm.exceptions import InputError, MissingExtraError, UndefinedMetricWarning

RNG = np.random.default_rng(2)
CONFIDENCE, CORRECT = np.round(RNG.random(60), 1), RNG.random(60) < 0.6
SAMPLES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)


@given(SAMPLES, st.lists(st.integers(0, 40), max_size=4))
def test_batches_in_any_cut_are_one_sample(samples, cuts):
    confidence, correct = map(np.array, zip(*samples, strict=True))
    for metric in (AURC(), AUGRC()):
        bounds = [0, *sorted(min(c, len(samples)) for c in cuts), len(samples)]
        for start, end in pairwise(bounds):
            metric.update(confidence[start:end], correct[start:end])
        assert len(metric) == len(samples)
        expected = getattr(metrics, metric.metric)(confidence, correct)
        assert metric.compute() == pytest.approx(expected)


@pytest.mark.parametrize("name", metrics.METRICS)
@pytest.mark.parametrize("convention", metrics.CONVENTIONS)
def test_every_metric_can_be_fed(name, convention):
    metric = SelectiveMetric(name, convention=convention)
    first = metric(CONFIDENCE[:20], CORRECT[:20])
    function = getattr(metrics, name)
    assert first == function(CONFIDENCE[:20], CORRECT[:20], convention=convention)
    metric.update(CONFIDENCE[20:], CORRECT[20:])
    assert metric.compute() == function(CONFIDENCE, CORRECT, convention=convention)
    assert metric.higher_is_better == (name.startswith(("acc", "aupr", "auroc")))


def test_state_can_be_merged_and_forgotten():
    one, other = AURC(), AURC()
    one.update(CONFIDENCE[:30], CORRECT[:30])
    other.update(CONFIDENCE[30:], CORRECT[30:])
    one.merge_state(other)
    assert one.compute() == pytest.approx(metrics.aurc(CONFIDENCE, CORRECT))
    one.reset()
    assert len(one) == 0
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(one.compute())


def test_a_bad_batch_leaves_nothing_behind():
    metric = AURC()
    metric.update([0.5], [1])
    for confidence, correct in (([np.nan], [1]), ([0.1, 0.2], [1]), ([0.1], [3])):
        with pytest.raises(InputError):
            metric.update(confidence, correct)
    assert len(metric) == 1


@pytest.mark.parametrize(
    "settings", [{"metric": "nonsense"}, {"metric": "aurc", "convention": "x"}]
)
def test_unknown_names_are_refused(settings):
    with pytest.raises(InputError, match="Expected"):
        SelectiveMetric(**settings)


def test_tensors_are_taken_as_they_come():
    torch = pytest.importorskip("torch")
    confidence = torch.tensor(CONFIDENCE, dtype=torch.bfloat16, requires_grad=True)
    metric = AURC()
    metric.update(confidence, torch.tensor(CORRECT))
    assert metric.compute() == metrics.aurc(confidence.detach().double().numpy(), CORRECT)


def test_without_torchmetrics_the_error_names_the_extra(monkeypatch):
    import sys

    from trustvlm.adapters.torchmetrics import metric_class

    metric_class.cache_clear()
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(MissingExtraError, match=r"trustvlm\[torchmetrics\]"):
        torchmetric("aurc")


def test_it_is_a_torchmetric():
    torchmetrics = pytest.importorskip("torchmetrics")
    torch = pytest.importorskip("torch")
    collection = torchmetrics.MetricCollection({"aurc": torchmetric(), "fpr": torchmetric("fpr95")})
    for part in (slice(0, 25), slice(25, 60)):
        collection.update(torch.tensor(CONFIDENCE[part]), torch.tensor(CORRECT[part]))
    value = collection.compute()
    assert value["aurc"].item() == pytest.approx(metrics.aurc(CONFIDENCE, CORRECT))
    assert value["fpr"].item() == pytest.approx(metrics.fpr95(CONFIDENCE, CORRECT))
    collection.reset()
    assert collection["aurc"].confidence == []
    assert not collection["aurc"].higher_is_better


def test_a_torchmetric_travels_with_what_it_has_seen():
    pytest.importorskip("torchmetrics")
    metric = torchmetric("auroc")
    metric.update(CONFIDENCE, CORRECT)
    for other in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert other.compute().item() == pytest.approx(metrics.auroc(CONFIDENCE, CORRECT))
