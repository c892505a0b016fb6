"""Which score `evaluate` names as better, and how often it does so by chance."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluations import make_evaluation
from trustvlm import metrics
from trustvlm.metrics.paired import holm
from trustvlm.pipeline.evaluate import better_score
from trustvlm.report.summary import Acceptance, findings
from trustvlm.scores import ScoreResult


def results_of(rng, n=200, wrong=0.3, **signals):
    """Scores that tell right from wrong by their signal, on the same labels."""
    labels = np.zeros(n, dtype=np.int64)
    prediction = (rng.random(n) < wrong).astype(np.int64)
    return labels, {
        name: ScoreResult(prediction, signal * (prediction == 0) + rng.normal(size=n))
        for name, signal in signals.items()
    }


def test_the_best_of_the_significant_ones_is_named_with_its_figures():
    labels, results = results_of(np.random.default_rng(0), trustvlm=0.5, msp=0.4, auto=2, gda=9)
    auto = results["auto"]
    corrected = np.where(np.arange(200) % 2, auto.prediction, labels)
    results["auto_star"] = ScoreResult(corrected, auto.confidence)
    better = better_score("trustvlm", results, labels)
    assert (better.score, better.own, better.compared) == ("auto_star", "trustvlm", 3)
    right = corrected == labels
    assert better.accuracy == right.mean() > better.own_accuracy
    assert better.aurc == pytest.approx(metrics.aurc(auto.confidence, right))
    own = results["trustvlm"]
    assert better.own_aurc == pytest.approx(metrics.aurc(own.confidence, own.prediction == labels))
    p_values = []
    for name in ("msp", "auto", "auto_star"):
        paired = metrics.paired_bootstrap(
            results[name].confidence,
            own.confidence,
            results[name].prediction == labels,
            own.prediction == labels,
            "aurc",
            n_resamples=500,
        )
        p_values.append(paired.p_value)
    assert better.p_value == pytest.approx(holm(p_values)[2])
    assert (better.low, better.high) == (paired.low, paired.high)
    without = {name: result for name, result in results.items() if name != "auto_star"}
    better = better_score("trustvlm", without, labels)
    assert (better.score, better.accuracy) == ("auto", better.own_accuracy)
    assert "labels right" not in str(better)


def test_a_score_that_a_model_cannot_be_fitted_with_is_not_named():
    labels, results = results_of(np.random.default_rng(1), trustvlm=1, gda=9)
    assert better_score("trustvlm", results, labels) is None
    assert better_score("gda", results, labels) is None


@pytest.mark.parametrize("n", [1, 2, 30])
def test_where_nothing_can_be_said_nothing_is_named(n):
    labels = np.zeros(n, dtype=np.int64)
    for prediction in (labels, labels + 1):
        same = ScoreResult(prediction, np.zeros(n))
        assert better_score("msp", {"msp": same, "auto": same}, labels) is None


def test_by_chance_it_names_one_in_at_most_one_of_twenty_evaluations():
    rng = np.random.default_rng(2)
    signals = dict.fromkeys(("msp", "trustvlm", "trustvlm_star", "auto", "auto_star"), 1.0)
    runs = 300
    named = 0
    for _ in range(runs):
        labels, results = results_of(rng, n=80, **signals)
        named += better_score("trustvlm", results, labels) is not None
    # 5 % are allowed of both directions together; three standard errors above.
    assert named <= runs * 0.05 + 3 * np.sqrt(runs * 0.05 * 0.95)


def test_it_stands_in_the_file_and_among_the_first_sentences():
    evaluation = make_evaluation(n=200, score="msp")
    better = better_score("msp", evaluation.results, evaluation.labels)
    assert better is not None
    evaluation = make_evaluation(n=200, score="msp", better=better)
    stored = json.loads(json.dumps(evaluation.to_dict()))["better_score"]
    assert stored == better.to_dict()
    own = evaluation.results["msp"]
    drawn = {"msp": Acceptance.of(own.confidence, evaluation.correct())}
    said = findings(evaluation, drawn)[-1]
    assert said.startswith(f"The score {better.score} would serve better here than msp")
    assert "Choose on one labelled set and report on another" in said
