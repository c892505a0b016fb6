"""Time the metrics against scikit-learn and against a plain Python loop.

Run it as `python benchmarks/metrics.py`; it takes about a minute. All contenders are timed in the
same run, in turn, and the table has medians. scikit-learn has AUROC, FPR95 and the two AUPR, each
with a sort of its own; the rest it does not have, so the comparison favours it.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from trustvlm import metrics


def samples(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    confidence = rng.random(n)
    return confidence, rng.random(n) < confidence


def with_scikit_learn(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    fpr, tpr, _ = roc_curve(correct, confidence, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(correct, confidence)
    return {
        "auroc": roc_auc_score(correct, confidence),
        "fpr95": fpr[np.argmax(tpr >= 0.95)],
        "aupr_success": auc(recall, precision),
        "aupr_error": average_precision_score(~correct, -confidence),
    }


def with_a_loop(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    """AURC and AUGRC alone, without regard to ties."""
    order = sorted(range(len(confidence)), key=lambda i: -confidence[i])
    errors, risks, joint = 0, 0.0, 0.0
    for k, i in enumerate(order, 1):
        errors += not correct[i]
        risks += errors / k
        joint += errors
    return {"aurc": risks / len(order), "augrc": joint / len(order) ** 2}


def resampled_with_scikit_learn(
    confidence: np.ndarray, correct: np.ndarray, n_resamples: int
) -> list[float]:
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(correct), size=len(correct)) for _ in range(n_resamples))
    return [roc_auc_score(correct[d], confidence[d]) for d in draws]


def in_turn(repeats: int, *contenders: Callable[[], Any]) -> list[float]:
    """Median seconds of each contender, one round after another."""
    times: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender()
    for _ in range(repeats):
        for taken, contender in zip(times, contenders, strict=True):
            start = time.perf_counter()
            contender()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def check(confidence: np.ndarray, correct: np.ndarray) -> None:
    """Refuse to time what does not agree."""
    found = metrics.evaluate(confidence, correct).to_dict()
    others = with_scikit_learn(confidence, correct) | with_a_loop(confidence, correct)
    for name, expected in others.items():
        if abs(found[name] - expected) > 1e-9:
            sys.exit(f"{name}: {found[name]} here, {expected} there")


def main() -> None:
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    print("\nEvery metric from one call of evaluate; median milliseconds (ratio to evaluate)")
    print(f"{'n':>9} {'evaluate':>9} {'scikit-learn, 4 of 8':>22} {'Python loop, 2 of 8':>22}")
    for n, repeats in ((1_500, 25), (50_000, 7), (1_000_000, 3)):
        confidence, correct = samples(n)
        check(confidence, correct)
        ours, theirs, loop = in_turn(
            repeats,
            lambda x=confidence, y=correct: metrics.evaluate(x, y),
            lambda x=confidence, y=correct: with_scikit_learn(x, y),
            lambda x=confidence, y=correct: with_a_loop(x, y),
        )
        print(
            f"{n:>9,} {1e3 * ours:>9.2f} {1e3 * theirs:>13.2f} ({theirs / ours:5.1f}x)"
            f" {1e3 * loop:>13.2f} ({loop / ours:5.1f}x)"
        )
    print("\nBootstrap; median seconds")
    print(f"{'n':>9} {'resamples':>10} {'8 metrics':>10} {'AUROC':>8} {'paired AURC':>12}")
    for n, n_resamples in ((1_500, 10_000), (100_000, 1_000)):
        confidence, correct = samples(n)
        other = confidence + np.random.default_rng(1).random(n)
        everything, one, paired = in_turn(
            3,
            lambda x=confidence, y=correct, b=n_resamples: metrics.bootstrap(x, y, n_resamples=b),
            lambda x=confidence, y=correct, b=n_resamples: metrics.bootstrap(
                x, y, "auroc", n_resamples=b
            ),
            lambda x=confidence, y=correct, z=other, b=n_resamples: metrics.paired_bootstrap(
                x, z, y, n_resamples=b
            ),
        )
        print(f"{n:>9,} {n_resamples:>10,} {everything:>10.2f} {one:>8.2f} {paired:>12.2f}")
    confidence, correct = samples(1_500)
    ours, theirs = in_turn(
        3,
        lambda: metrics.bootstrap(confidence, correct, "auroc", n_resamples=500),
        lambda: resampled_with_scikit_learn(confidence, correct, 500),
    )
    print(
        f"\n500 resamples of 1,500, AUROC alone: {1e3 * ours:.1f} ms; "
        f"scikit-learn on every resample {1e3 * theirs:.0f} ms ({theirs / ours:.0f}x)"
    )


if __name__ == "__main__":
    main()
