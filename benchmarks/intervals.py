"""How often intervals of metrics hold the truth, and how often paired tests reject what is true.

    python benchmarks/intervals.py [--repeats 400] [--resamples 250] [--only intervals,paired,band]

Samples are drawn from stated populations, error shares and sizes, at least five of them wrong and
five right; the truth is the metric of a million samples. "Before" are percentiles of the same
resamples, with the p-value that belongs to them. Seeded: a second run prints the same tables.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from scipy import stats

from trustvlm import metrics
from trustvlm.exceptions import FewSamplesWarning
from trustvlm.metrics.bootstrap import evaluated, multiplicities, resampled_counts
from trustvlm.metrics.counts import area_table, rank
from trustvlm.metrics.intervals import metric_interval
from trustvlm.metrics.paired import PairedDifference

Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]
LEVEL, TAILS = 0.95, (0.025, 0.975)
TRUTH = 1_000_000
# Images and the share of errors among them.
CELLS = (
    (30, 0.3),
    (50, 0.13),
    (50, 0.5),
    (50, 0.8),
    (200, 0.04),
    (200, 0.3),
    (1000, 0.01),
    (5000, 0.02),
)


def normal(auroc: float) -> Draw:
    """Both classes normal with one variance."""
    distance = math.sqrt(2) * stats.norm.ppf(auroc)
    return lambda rng, right: rng.normal(size=right.size) + distance * right


def two_kinds(rng: np.random.Generator, right: np.ndarray) -> np.ndarray:
    """A fifth of the errors are trusted like right predictions."""
    high = right | (rng.random(right.size) < 0.2)
    return rng.normal(size=right.size) + 2.5 * high


def wide_errors(rng: np.random.Generator, right: np.ndarray) -> np.ndarray:
    """Errors scatter twice as widely: the very top is theirs."""
    noise = rng.normal(size=right.size)
    return np.where(right, 1.2 + noise, 2.0 * noise)


def skewed(rng: np.random.Generator, right: np.ndarray) -> np.ndarray:
    return -rng.exponential(size=right.size) * np.where(right, 1.0, 4.0)


def three_values(rng: np.random.Generator, right: np.ndarray) -> np.ndarray:
    top = rng.random(right.size) < np.where(right, 0.8, 0.3)
    return np.where(top, 2, rng.integers(2, size=right.size))


POPULATIONS: dict[str, Draw] = {
    "chance": normal(0.5),
    "weak": normal(0.65),
    "strong": normal(0.9),
    "very strong": normal(0.98),
    "two kinds": two_kinds,
    "wide errors": wide_errors,
    "skewed": skewed,
    "rounded": lambda rng, right: np.round(normal(0.8)(rng, right)),
    "saturated": lambda rng, right: np.minimum(normal(0.9)(rng, right), 1.5),
    "three values": three_values,
}


def labels(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    while True:
        right = rng.random(n) >= share
        if 5 <= right.sum() <= n - 5:
            return right


def resampled(
    samples: list[tuple[np.ndarray, np.ndarray]], n_resamples: int, rng: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """Every metric of each score on the same resamples."""
    rankings = [rank(*sample) for sample in samples]
    n = rankings[0].n
    harmonic = area_table(n)
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in samples]
    for weights in multiplicities(n, n_resamples, rng):
        for ranking, part in zip(rankings, parts, strict=True):
            counts = resampled_counts(ranking, weights[:, ranking.order])
            part.append(evaluated(counts, metrics.METRICS, harmonic))
    return [
        {name: np.concatenate([chunk[name] for chunk in part]) for name in metrics.METRICS}
        for part in parts
    ]


def intervals(repeats: int, n_resamples: int) -> None:
    """Coverage of the intervals of every metric."""
    rng = np.random.default_rng(0)
    held: dict[str, dict[tuple[str, int, float], np.ndarray]] = defaultdict(dict)
    for name, draw in POPULATIONS.items():
        for n, share in CELLS:
            right = np.arange(TRUTH) >= share * TRUTH
            truth = metrics.evaluate(draw(rng, right), right).to_dict()
            hits: dict[str, list[tuple[bool, bool, float, float]]] = defaultdict(list)
            for _ in range(repeats if n < 1000 else repeats // 4):
                correct = labels(rng, n, share)
                ranking = rank(draw(rng, correct), correct)
                own = metrics.evaluate(ranking.confidence, ranking.correct).to_dict()
                (values,) = resampled([(ranking.confidence, ranking.correct)], n_resamples, rng)
                for metric in metrics.METRICS:
                    before = np.nanquantile(values[metric], TAILS)
                    after = metric_interval(metric, ranking, own[metric], values[metric], LEVEL)[:2]
                    ends = [
                        low - 1e-9 <= truth[metric] <= high + 1e-9 for low, high in (before, after)
                    ]
                    hits[metric].append((*ends, np.ptp(before), np.ptp(after)))
            for metric, rows in hits.items():
                array = np.array(rows, dtype=float)
                held[metric][name, n, share] = np.r_[
                    array[:, :2].mean(axis=0), np.median(array[:, 2:], axis=0)
                ]
            worst = {m: round(float(cells[name, n, share][1]), 3) for m, cells in held.items()}
            print(f"<!-- {name}, {n}, {share}: {worst} -->", flush=True)
    print(f"\nCoverage of 95 % intervals: {len(POPULATIONS)} populations, {len(CELLS)} sizes\n")
    print("| metric | percentiles: least | mean | now: least | mean | where least | width |")
    print("|---|--:|--:|--:|--:|---|--:|")
    for metric, cells in held.items():
        array = np.array(list(cells.values()))
        where = min(cells, key=lambda cell: cells[cell][1])
        wide = array[:, 2] > 0
        print(
            f"| {metric} | {array[:, 0].min():.3f} | {array[:, 0].mean():.3f} | "
            f"{array[:, 1].min():.3f} | {array[:, 1].mean():.3f} | "
            f"{where[0]}, n = {where[1]}, {where[2]:g} wrong | "
            f"{np.median(array[wide, 3] / array[wide, 2]):.2f} |"
        )


# Two scores of the same images between which there is no difference.

Pair = Callable[[np.random.Generator, int, float], list[tuple[np.ndarray, np.ndarray]]]


def independent(draw: Draw) -> Pair:
    def pair(rng: np.random.Generator, n: int, share: float) -> list[tuple[np.ndarray, np.ndarray]]:
        right = labels(rng, n, share)
        return [(draw(rng, right), right), (draw(rng, right), right)]

    return pair


def correlated(digits: int) -> Pair:
    """Two scores that share nine tenths of their variance."""

    def pair(rng: np.random.Generator, n: int, share: float) -> list[tuple[np.ndarray, np.ndarray]]:
        right = labels(rng, n, share)
        shared = 1.2 * right + math.sqrt(0.9) * rng.normal(size=n)
        noise = math.sqrt(0.1) * rng.normal(size=(2, n))
        return [(np.round(shared + e, digits), right) for e in noise]

    return pair


def other_labels(
    rng: np.random.Generator, n: int, share: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two methods that may label a tenth of the images differently."""
    right, again = labels(rng, n, share), labels(rng, n, share)
    other = np.where(rng.random(n) < 0.1, again, right)
    if not 5 <= other.sum() <= n - 5:
        return other_labels(rng, n, share)
    draw = POPULATIONS["strong"]
    return [(draw(rng, right), right), (draw(rng, other), other)]


PAIRS: dict[str, Pair] = {
    "weak": independent(POPULATIONS["weak"]),
    "strong": independent(POPULATIONS["strong"]),
    "very strong": independent(POPULATIONS["very strong"]),
    "two kinds": independent(POPULATIONS["two kinds"]),
    "three values": independent(POPULATIONS["three values"]),
    "saturated": independent(POPULATIONS["saturated"]),
    "correlated": correlated(9),
    "correlated, rounded": correlated(0),
    "other labels": other_labels,
}


def paired(repeats: int, n_resamples: int) -> None:
    """How often a paired test rejects at 5 % what is true."""
    rng = np.random.default_rng(1)
    rejected: dict[str, dict[tuple[str, int, float], np.ndarray]] = defaultdict(dict)
    for name, pair in PAIRS.items():
        for n, share in CELLS[:6]:
            counts = {metric: np.zeros(2) for metric in metrics.METRICS}
            for _ in range(repeats):
                samples = pair(rng, n, share)
                a, b = resampled(samples, n_resamples, rng)
                rankings = rank(*samples[0]), rank(*samples[1])
                own = [metrics.evaluate(*sample).to_dict() for sample in samples]
                for metric, count in counts.items():
                    values = a[metric] - b[metric]
                    kept = values[~np.isnan(values)]
                    tail = min((kept <= 0).sum(), (kept >= 0).sum())
                    now = PairedDifference.of_samples(
                        metric, rankings, (own[0][metric], own[1][metric]), values, LEVEL
                    )
                    count += 2 * (tail + 1) / (kept.size + 1) <= 0.05, now.p_value <= 0.05
            for metric, count in counts.items():
                rejected[metric][name, n, share] = count / repeats
            print(f"<!-- {name}, {n}, {share}: {counts['auroc'] / repeats} -->", flush=True)
    print(f"\nTrue hypotheses rejected at 5 %: {len(PAIRS)} pairs of scores, 6 sizes\n")
    print("| metric | percentiles: most | mean | now: most | mean | where most |")
    print("|---|--:|--:|--:|--:|---|")
    for metric, cells in rejected.items():
        array = np.array(list(cells.values()))
        where = max(cells, key=lambda cell: cells[cell][1])
        print(
            f"| {metric} | {array[:, 0].max():.3f} | {array[:, 0].mean():.3f} | "
            f"{array[:, 1].max():.3f} | {array[:, 1].mean():.3f} | "
            f"{where[0]}, n = {where[1]}, {where[2]:g} wrong |"
        )


def band(repeats: int, n_resamples: int) -> None:
    """Coverage of the band of the risk-coverage curve at single coverages."""
    rng = np.random.default_rng(2)
    shares = np.array([0.1, 0.3, 0.5, 0.8, 1.0])
    print("\nCoverage of the band of the risk-coverage curve, by share accepted\n")
    print("| population | n | wrong | " + " | ".join(f"{s:g}" for s in shares) + " |")
    print("|---|--:|--:|" + "--:|" * len(shares))
    for name in ("chance", "strong", "two kinds", "wide errors", "rounded", "saturated"):
        for n, wrong in ((50, 0.13), (50, 0.5), (200, 0.04), (200, 0.3), (1000, 0.1)):
            right = np.arange(TRUTH) >= wrong * TRUTH
            truth = metrics.risk_band(
                POPULATIONS[name](rng, right), right, shares, n_resamples=1
            ).risk
            hits = np.zeros(len(shares))
            for seed in range(repeats):
                correct = labels(rng, n, wrong)
                result = metrics.risk_band(
                    POPULATIONS[name](rng, correct),
                    correct,
                    shares,
                    n_resamples=n_resamples,
                    seed=seed,
                )
                hits += (result.low - 1e-9 <= truth) & (truth <= result.high + 1e-9)
            row = " | ".join(f"{hit / repeats:.3f}" for hit in hits)
            print(f"| {name} | {n} | {wrong:g} | {row} |", flush=True)


def main() -> None:
    parts = {"intervals": intervals, "paired": paired, "band": band}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=250)
    parser.add_argument("--only", default=",".join(parts))
    options = parser.parse_args()
    warnings.simplefilter("ignore", FewSamplesWarning)
    for name in options.only.split(","):
        parts[name](options.repeats, options.resamples)


if __name__ == "__main__":
    main()
