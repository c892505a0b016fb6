"""P(correct) on held-out halves of real test splits: calibration error and Brier score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decision_data import Judged, judged, priors
from trustvlm import metrics
from trustvlm.decisions import CALIBRATORS, DEFAULT_CALIBRATOR, Calibrator, LogisticPrior

LEAST = 300
MEASURES = (metrics.ece, metrics.ece_debiased, metrics.ece_sweep, metrics.brier)


def measured(
    calibrator: Calibrator, data: Judged, splits: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means over splits: the `MEASURES`, the constant's Brier score, how often that is lower.

    Before them what the debiased error shows of labels drawn with these very probabilities.
    """
    rows = []
    for _ in range(splits):
        order = rng.permutation(data.n)
        known, fresh = order[: data.n // 2], order[data.n // 2 :]
        p = calibrator.fit(*data.rows(known)).predict(data.confidence[fresh])
        right = data.correct[fresh]
        values = [measure(p, right) for measure in MEASURES]
        constant = float(np.mean((data.correct[known].mean() - right) ** 2))
        as_if_true = metrics.ece_debiased(p, rng.random(len(p)) < p)
        rows.append([as_if_true, *values, constant, float(values[-1] > constant)])
    return np.mean(rows, axis=0)


def print_probabilities(root: Path, scores: tuple[str, ...], splits: int) -> None:
    """Print a table of the default calibrator, one of all calibrators, and one from the shots."""
    print(f"\n### P(correct), {splits} random halves, splits with {LEAST} images or more\n")
    print(
        "| score | set | n | debiased if true | ECE | debiased | sweep "
        "| Brier | constant | constant better |"
    )
    print("|---|---|" + "--:|" * 8)
    every = {score: judged(root, score) for score in scores}
    known = {score: priors(root, score) for score in scores}
    means: dict[tuple[str, str], NDArray[np.float64]] = {}
    for score in scores:
        large = [data for data in every[score] if data.n >= LEAST]
        for name in CALIBRATORS:
            used = splits if name != "venn_abers" else max(1, splits // 10)
            prior = known[score] if name == DEFAULT_CALIBRATOR else {}
            rows = [
                measured(
                    Calibrator(name, prior.get(data.name)), data, used, np.random.default_rng(2)
                )
                for data in large
            ]
            means[score, name] = np.mean(rows, axis=0)
            if name == DEFAULT_CALIBRATOR:
                for data, row in zip(large, rows, strict=True):
                    print(f"| {score} | {data.name} | {data.n} | {_cells(row)} |")
                print(f"| {score} | **mean** | | {_cells(means[score, name])} |")
    print(
        "\n| score | calibrator | debiased if true | ECE | debiased | sweep "
        "| Brier | constant | constant better |"
    )
    print("|---|---|" + "--:|" * 7)
    for (score, name), row in means.items():
        print(f"| {score} | {name} | {_cells(row)} |")
    _print_from_shots(known, every)


def _print_from_shots(
    known: dict[str, dict[str, LogisticPrior]], every: dict[str, list[Judged]]
) -> None:
    print("\n### P(correct) from the shots alone, measured on whole test splits\n")
    print("| score | set | n | right | mean P(correct) | ECE | debiased | Brier | constant |")
    print("|---|---|" + "--:|" * 7)
    for score, splits in every.items():
        for data in splits:
            learned = Calibrator(prior=known[score][data.name]).fit([], [])
            p = learned.predict(data.confidence)
            share = float(data.correct.mean())
            found = metrics.ece(p, data.correct), metrics.ece_debiased(p, data.correct)
            cells = [share, float(p.mean()), *found, metrics.brier(p, data.correct)]
            texts = " | ".join(f"{c:.3f}" for c in [*cells, share * (1 - share)])
            print(f"| {score} | {data.name} | {data.n} | {texts} |")


def _cells(row: NDArray[np.float64]) -> str:
    return " | ".join([*(f"{value:.3f}" for value in row[:-1]), f"{row[-1]:.0%}"])
