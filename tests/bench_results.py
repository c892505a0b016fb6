"""Made-up study results with real metrics, for the tests of tables, figures and the page."""

from __future__ import annotations

import math
import warnings

import numpy as np

from trustvlm import metrics
from trustvlm.benchmark.results import Classes, Results, Setting

# How well a score tells right from wrong; 0 is chance.
QUALITY = {"msp": 0.6, "image_similarity": 0.9, "trustvlm": 1.6, "trustvlm_star": 3.0, "noise": 0.0}
STAR_GAIN = 0.5
NOWHERE = Setting()


def make_results(
    datasets=("pets", "flowers", "cars"),
    scores=tuple(QUALITY),
    shots=(1, 16),
    draws=2,
    n=120,
    settings=(NOWHERE,),
    accuracy=0.6,
    with_samples=True,
    seed=0,
    **further,
) -> Results:
    rng = np.random.default_rng(seed)
    rows, samples, classes = [], {}, {}
    for setting in settings:
        for dataset in datasets:
            right = rng.random(n) < accuracy
            classes[dataset] = Classes(rng.integers(0, 4, n), ["ant", "bee", "cat", "dog"])
            for count in shots:
                for draw in range(draws):
                    for score in scores:
                        sample = _sample(score, right, count, rng)
                        about = {"dataset": dataset, "score": score, "shots": count, "draw": draw}
                        about |= {k: v for k, v in setting._asdict().items() if v}
                        rows.append(about | _measured(sample))
                        if with_samples and draw == 0 and count == max(shots):
                            samples[dataset, score, tuple(setting)] = sample
    return Results(rows, samples, classes, **further)


def _sample(score, right, shots, rng):
    correct = right.copy()
    if score.endswith("_star"):
        correct |= rng.random(len(right)) < STAR_GAIN
    quality = QUALITY.get(score, 1.0) * (0.5 + 0.5 * math.log2(shots + 1) / 4)
    return correct * quality + rng.normal(size=len(right)), correct


def _measured(sample):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metrics.evaluate(*sample)
    values = {name: getattr(found, name) for name in metrics.METRICS}
    return {k: None if math.isnan(v) else v for k, v in values.items()} | {"n": found.n}
