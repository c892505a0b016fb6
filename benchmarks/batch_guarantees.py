"""Conformal selection and prediction sets on real sets, against certificates and an oracle.

    python benchmarks/batch_guarantees.py EMBEDDINGS [EMBEDDINGS ...] [--splits 1000] [--risk 0.1]

Each EMBEDDINGS holds `<set>__train.npz` and `<set>__test*.npz` as `trustvlm bench arrays` reads
them. Of every test split n random images calibrate, and the others are the batch, again and again.
First table: mean share of wrong labels among those accepted in a batch (a batch of which nothing
is accepted counts as 0) and what is accepted, as a share of what an oracle accepts; the same of the
threshold for single images, and of the certificate at 95 %. Second table: how often the true label
is in the prediction set, and how many labels a set has.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from decision_data import Judged, judged, probabilities
from trustvlm.decisions import (
    SET_METHODS,
    PredictionSets,
    certify,
    nonconformity,
    select_conformal,
)

SIZES = (50, 100, 200)


def selection_row(of: Judged, n: int, risk: float, splits: int) -> list[float]:
    """Mean realised errors and coverages over random splits."""
    rng = np.random.default_rng(0)
    rows = []
    for split in range(splits):
        order = rng.permutation(of.n)
        (a, right), (b, correct) = of.rows(order[:n]), of.rows(order[n:])
        rule = select_conformal(a, right, risk)
        batch, single = rule.accept(b), b >= rule.threshold
        row = [share_wrong(batch, correct), batch.mean()]
        row += [share_wrong(single, correct), single.mean()]
        # A certificate takes longer, and its mean is as well known from fewer splits.
        sure = b >= certify(a, right, risk).threshold if split < 100 else np.array([np.nan])
        rows.append([*row, sure.mean()])
    return np.nanmean(rows, axis=0).tolist()


def share_wrong(accepted: np.ndarray, correct: np.ndarray) -> float:
    return float((accepted & ~correct).sum() / max(1, accepted.sum()))


def set_row(p: np.ndarray, labels: np.ndarray, n: int, level: float, splits: int) -> list[float]:
    """Coverage and size of prediction sets, by method."""
    rng, row = np.random.default_rng(0), []
    for method in SET_METHODS:
        unusual = nonconformity(p, method)[np.arange(len(labels)), labels]
        figures = []
        for _ in range(splits):
            order = rng.permutation(len(labels))
            a, b = order[:n], order[n : n + 500]
            sets = PredictionSets.fit(
                unusual[a], labels[a], p.shape[1], level=level, method=method
            ).contains(p[b])
            figures.append((sets[np.arange(len(b)), labels[b]].mean(), sets.sum(axis=1).mean()))
        row += np.mean(figures, axis=0).tolist()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("embeddings", type=Path, nargs="+")
    parser.add_argument("--score", default="auto_star")
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--splits", type=int, default=1000)
    options = parser.parse_args()
    print("| set | n | batch: wrong | accepted / oracle | single: wrong | accepted / oracle "
          "| certificate / oracle |")  # fmt: skip
    print("|---|--:|" + "--:|" * 5)
    means = {n: [] for n in SIZES}
    for root in options.embeddings:
        for of in judged(root, options.score):
            oracle = of.oracle(options.risk)
            for n in (n for n in SIZES if of.n - n >= 50 and oracle > 0):
                wrong, batch, wrong_single, single, sure = selection_row(
                    of, n, options.risk, options.splits
                )
                row = [wrong, batch / oracle, wrong_single, single / oracle, sure / oracle]
                means[n].append(row)
                print(f"| {of.name} | {n} | " + " | ".join(f"{v:.3f}" for v in row) + " |")
    for n, rows in means.items():
        cells = " | ".join(f"{v:.3f}" for v in np.mean(rows, axis=0))
        print(f"| mean | {n} | {cells} |")
    print("\n| set | n | " + " | ".join(f"{m}: covered | labels" for m in SET_METHODS) + " |")
    print("|---|--:|" + "--:|" * 2 * len(SET_METHODS))
    for root in options.embeddings:
        for name, p, labels in probabilities(root):
            for n in (n for n in SIZES if len(labels) - n >= 50):
                row = set_row(p, labels, n, 0.9, max(10, options.splits // 10))
                print(f"| {name} | {n} | " + " | ".join(f"{v:.3f}" for v in row) + " |")


if __name__ == "__main__":
    main()
