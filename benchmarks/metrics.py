"""Time the metrics against scikit-learn, torchmetrics, plain NumPy and a plain Python loop.

Run it as `python benchmarks/metrics.py`; it takes about two minutes. All contenders are timed in
the same run, in turn, and the table has medians. scikit-learn has AUROC, FPR95 and the two AUPR,
each with a sort of its own; the rest it does not have, so the comparison favours it. torchmetrics'
ECE has bins of equal width, which need no ranks.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.metrics import (
    average_precision_score,
    roc_auc_score,
    roc_curve,
)
from torchmetrics.functional.classification import binary_calibration_error

from trustvlm import metrics


def samples(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    confidence = rng.random(n)
    return confidence, rng.random(n) < confidence


def with_scikit_learn(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    fpr, tpr, _ = roc_curve(correct, confidence, drop_intermediate=False)
    return {
        "auroc": roc_auc_score(correct, confidence),
        "fpr95": fpr[np.argmax(tpr >= 0.95)],
        "aupr_success": average_precision_score(correct, confidence),
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


def aurc_resampled_with_numpy(
    confidence: np.ndarray, correct: np.ndarray, n_resamples: int, *, ranked: bool
) -> np.ndarray:
    """AURC of every resample without regard to ties; `ranked`: all samples are sorted once."""
    rng, n = np.random.default_rng(0), len(correct)
    order = np.argsort(-confidence, kind="stable")
    wrong, ranks = ~correct[order], np.arange(1, n + 1)
    aurc = np.empty(n_resamples)
    for sample in range(n_resamples):
        drawn = rng.integers(n, size=n)
        if ranked:
            # Sorting ranks is what sorting confidences would give.
            errors = wrong[np.sort(drawn)]
        else:
            by_confidence = np.argsort(-confidence[drawn], kind="stable")
            errors = ~correct[drawn][by_confidence]
        aurc[sample] = np.mean(np.cumsum(errors) / ranks)
    return np.quantile(aurc, [0.025, 0.975])


def time_aurc_bootstrap() -> None:
    print("\nBootstrap of AURC alone; median milliseconds")
    print(f"{'n':>9} {'resamples':>10} {'here':>8} {'NumPy':>15} {'NumPy, ranked':>15}")
    for n, n_resamples in ((200, 4_000), (1_500, 2_000), (20_000, 200), (100_000, 100)):
        confidence, correct = samples(n)
        ours, plain, ranked = in_turn(
            7,
            lambda x=confidence, y=correct, b=n_resamples: metrics.bootstrap(
                x, y, "aurc", n_resamples=b
            ),
            *(
                lambda x=confidence, y=correct, b=n_resamples, r=ranked: aurc_resampled_with_numpy(
                    x, y, b, ranked=r
                )
                for ranked in (False, True)
            ),
        )
        print(
            f"{n:>9,} {n_resamples:>10,} {1e3 * ours:>8.1f} {1e3 * plain:>7.1f} "
            f"({plain / ours:4.1f}x) {1e3 * ranked:>7.1f} ({ranked / ours:4.2f}x)"
        )


def time_calibration_errors() -> None:
    print("\nCalibration errors; median milliseconds")
    print(f"{'n':>9} {'ece':>7} {'torchmetrics':>13} {'unchecked':>10}", end="")
    print(f" {'ece_sweep':>10} {'all right':>10} {'all but one':>12}")
    for n in (1_000, 10_000, 100_000, 1_000_000):
        p, right = samples(n)
        preds, target = torch.from_numpy(p), torch.from_numpy(right.astype(np.int64))
        all_right = np.ones(n, dtype=bool)
        # One wrong image, the second least probable: most numbers of bins have to be tried.
        all_but_one = np.argsort(np.argsort(p)) != 1
        times = in_turn(
            7,
            lambda p=p, y=right: metrics.ece(p, y),
            lambda p=preds, y=target: binary_calibration_error(p, y, n_bins=15),
            lambda p=preds, y=target: binary_calibration_error(
                p, y, n_bins=15, validate_args=False
            ),
            lambda p=p, y=right: metrics.ece_sweep(p, y),
            lambda p=p, y=all_right: metrics.ece_sweep(p, y),
            lambda p=p, y=all_but_one: metrics.ece_sweep(p, y),
        )
        ece, checked, unchecked, sweep, all_right, nearly = (1e3 * t for t in times)
        print(
            f"{n:>9,} {ece:>7.2f} {checked:>13.2f} {unchecked:>10.2f} {sweep:>10.2f} "
            f"{all_right:>10.2f} {nearly:>12.2f}"
        )


def in_turn(repeats: int, *contenders: Callable[[], Any]) -> list[float]:
    """Median processor seconds of each contender, one round after another."""
    times: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender()
    for _ in range(repeats):
        for taken, contender in zip(times, contenders, strict=True):
            start = time.process_time()
            contender()
            taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in times]


def check(confidence: np.ndarray, correct: np.ndarray) -> None:
    """Refuse to time what does not agree."""
    found = metrics.evaluate(confidence, correct).to_dict()
    others = with_scikit_learn(confidence, correct) | with_a_loop(confidence, correct)
    for name, expected in others.items():
        if abs(found[name] - expected) > 1e-9:
            sys.exit(f"{name}: {found[name]} here, {expected} there")


def main() -> None:
    # One thread for all: processor time is what is compared.
    torch.set_num_threads(1)
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
    time_aurc_bootstrap()
    time_calibration_errors()


if __name__ == "__main__":
    main()
