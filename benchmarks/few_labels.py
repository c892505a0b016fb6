"""P(correct) from few labelled images: the default calibrator against the others.

    python benchmarks/few_labels.py EMBEDDINGS [EMBEDDINGS ...] [--shots 16] [--draws 50]

Each EMBEDDINGS holds `<set>__train.npz` and `<set>__test*.npz` as `trustvlm bench arrays` reads
them. Of every test split n random images are labelled and the others judged, again and again.
Printed last: the standard deviations of the prior as they would be chosen on all sets but one.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decision_data import Judged, judged, priors
from trustvlm import metrics
from trustvlm.decisions import CALIBRATORS, Calibrator, LogisticPrior

SCORES = ("auto", "auto_star", "trustvlm", "trustvlm_star", "msp", "maxlogit")
SIZES = (0, 20, 50, 200, 800)
LEAST = 80  # images that must be left to measure on
SLOW = {"venn_abers": 10}  # so many times fewer draws
# Priors to choose among: (share, sd of slope, of intercept), as known and shifted.
PRIORS = {
    "0.3, 0.3": (0.3, 0.3, 0.0, 1.0, 1.0),
    "0.2, 0.5": (0.2, 0.5, 0.0, 1.0, 1.0),
    "0.3, 0.5": (0.3, 0.5, 0.0, 1.0, 1.0),
    "0.3, 0.7": (0.3, 0.7, 0.0, 1.0, 1.0),
    "0.5, 1": (0.5, 1.0, 0.0, 1.0, 1.0),
    "0.1, 0.1; 0.3, 0.7 (15 %)": (0.1, 0.1, 0.15, 0.3, 0.7),
    "0.1, 0.1; 0.3, 0.7 (50 %)": (0.1, 0.1, 0.5, 0.3, 0.7),
    "0.1, 0.1; 0.4, 0.9 (10 %)": (0.1, 0.1, 0.1, 0.4, 0.9),
    "0.1, 0.1; 0.4, 0.9 (20 %)": (0.1, 0.1, 0.2, 0.4, 0.9),
    "0.1, 0.1; 0.4, 0.9 (30 %)": (0.1, 0.1, 0.3, 0.4, 0.9),
    "0.1, 0.2; 0.5, 1 (50 %)": (0.1, 0.2, 0.5, 0.5, 1.0),
}
NUMBERS = ("slope_sd", "intercept_sd", "shift_share", "shift_slope_sd", "shift_intercept_sd")


@dataclass(frozen=True)
class Case:
    """A score on one test split, and the prior that the pipeline would take for it."""

    score: str
    data: Judged
    prior: LogisticPrior

    @property
    def set_name(self) -> str:
        """The set that the split is of."""
        return self.data.name.split("__")[0]


def cases(root: Path, score: str, shots: int) -> list[Case]:
    """Return every test split of a folder."""
    known = priors(root, score, shots)
    return [Case(score, data, known[data.name]) for data in judged(root, score, shots)]


def log_loss(p: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Mean negative log-likelihood in nats, no probability below 1e-12."""
    return float(-np.log(np.maximum(np.where(correct, p, 1 - p), 1e-12)).mean())


def draws_of(
    data: Judged, n: int, draws: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield n images to label and the rest; the same each time. One draw is enough of none."""
    rng = np.random.default_rng(7)
    for _ in range(draws if n else 1):
        order = rng.permutation(data.n)
        yield order[:n], order[n:]


def measured(case: Case, calibrator: Calibrator, n: int, draws: int) -> NDArray[np.float64]:
    """Return log loss and debiased ECE with n labelled images, means over draws."""
    rows = []
    for labelled, fresh in draws_of(case.data, n, draws):
        confidence, correct = case.data.rows(fresh)
        p = calibrator.fit(*case.data.rows(labelled)).predict(confidence)
        rows.append([log_loss(p, correct), metrics.ece_debiased(p, correct)])
    return np.mean(rows, axis=0)


def print_sizes(every: list[Case], draws: int) -> None:
    """Print a table for each score and one of all: log loss and debiased ECE, means of splits."""
    rows: dict[tuple[str, str, int], list[NDArray[np.float64]]] = defaultdict(list)
    rises: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for case in every:
        ways = {name: Calibrator(name) for name in CALIBRATORS if name != "logistic"}
        ways = {
            "logistic": Calibrator(prior=case.prior),
            "logistic, no prior known": Calibrator(),
            **ways,
        }
        for name, calibrator in ways.items():
            for n in SIZES:
                if case.data.n < n + LEAST or (n == 0 and name != "logistic"):
                    continue
                used = max(2, draws // SLOW.get(name, 1))
                values = measured(case, calibrator, n, used)
                for of in (case.score, "all"):
                    rows[of, name, n].append(values)
        without, with_few = (rows[case.score, "logistic", n][-1] for n in (0, 20))
        rises[case.score].append((float(with_few[1] - without[1]), case.data.name))
    for of in dict.fromkeys(key[0] for key in rows):
        print(f"\n| {of} | " + " | ".join(f"n = {n}" for n in SIZES) + " |")
        print("|---|" + "--:|" * len(SIZES))
        for name in dict.fromkeys(key[1] for key in rows):
            means = [np.mean(rows[of, name, n], axis=0) for n in SIZES if (of, name, n) in rows]
            cells = [f"{loss:.3f} / {error:.3f}" for loss, error in means]
            cells = ["", *cells] if (of, name, 0) not in rows else cells
            print(f"| {name} | " + " | ".join(cells) + " |")
    print("\n| debiased ECE, n = 20 less n = 0 | mean | largest | on |\n|---|--:|--:|---|")
    for score, values in rises.items():
        largest, where = max(values)
        mean = np.mean([rise for rise, _ in values])
        print(f"| {score} | {mean:.4f} | {largest:.4f} | {where} |")


def print_choice(every: list[Case], draws: int) -> None:
    """Print the log loss of each prior, and which one all sets but one would choose."""
    losses: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for case in every:
        numbers = [dict(zip(NUMBERS, values, strict=True)) for values in PRIORS.values()]
        tried = [replace(case.prior, **fields) for fields in numbers]
        for n in (20, 50):
            if case.data.n >= n + LEAST:
                row = [measured(case, Calibrator(prior=prior), n, draws)[0] for prior in tried]
                losses[case.set_name].append(np.array(row))
    print("\n| deviations of slope, intercept; shifted (share) | log loss | chosen without |")
    print("|---|--:|---|")
    chosen, total = defaultdict(list), []
    for left_out, own in losses.items():
        others = np.concatenate([np.stack(v) for k, v in losses.items() if k != left_out])
        best = int(others.mean(axis=0).argmin())
        chosen[best].append(left_out)
        total += [row[best] for row in own]
    whole = np.mean(np.concatenate([np.stack(v) for v in losses.values()]), axis=0)
    for i, (name, value) in enumerate(zip(PRIORS, whole, strict=True)):
        print(f"| {name} | {value:.4f} | {', '.join(chosen[i])} |")
    print(f"\nEach set with the prior that the others choose: {np.mean(total):.4f}.")


def main() -> None:
    """Print everything as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("embeddings", type=Path, nargs="+")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--scores", default=",".join(SCORES))
    options = parser.parse_args()
    every: list[Case] = []
    for root in options.embeddings:
        own = [c for s in options.scores.split(",") for c in cases(root, s, options.shots)]
        print(f"\n### {root.name}, {options.shots} shots, {options.draws} draws")
        print_sizes(own, options.draws)
        every += own
    print_choice(every, max(2, options.draws // 5))


if __name__ == "__main__":
    main()
