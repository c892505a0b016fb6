"""Where a fixed sequence should test: coverage on simulated populations, by sequence.

    python benchmarks/sequences.py [--draws 400]

A population is a risk of the image at each place v in (0, 1], the most trusted first: logistic
curves with a floor, and powers. Coverage is the true share that is accepted, over that of an
oracle; 95 % confidence. The sequence of `trustvlm.risk_control.certify` (`plan`) and the one
before it (`spread, from 20%`) were chosen on such populations.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray
from scipy import special

from former_sequence import first_counts, sequence_counts, step_counts
from trustvlm.risk_control.sequences import Plan
from trustvlm.risk_control.tests import binomial_p_value, fixed_sequence

LEVEL = 0.95
SIZES = (80, 120, 160, 250, 370, 750)
RISKS = (0.02, 0.05, 0.1)
GRID = np.linspace(0, 1, 4001)[1:]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def populations() -> Iterator[Curve]:
    """Risks of the image at each place."""
    for c, w, floor in product((0.15, 0.3, 0.5, 0.7, 0.9), (0.02, 0.08, 0.2), (0, 0.01, 0.03)):
        yield (
            lambda v, c=c, w=w, floor=floor: floor + (1 - floor) * 0.8 * special.expit((v - c) / w)
        )
    for scale, power in ((0.4, 1.5), (0.5, 3), (0.2, 1), (0.1, 1)):
        yield lambda v, scale=scale, power=power: scale * v**power


def sequences(n: int, risk: float) -> dict[str, NDArray[np.int64]]:
    """By name, how many images each test uses; accepted is what is above the next image."""
    steps = step_counts(n, risk, LEVEL)
    ends = np.append(steps[steps < n], n)
    halves = np.unique(np.r_[ends, [(a + b) // 2 for a, b in pairwise(ends)]])
    levels = np.ceil(n * np.arange(1, 21) / 20).astype(int)
    found = {
        "20 levels": levels[levels >= steps[0]] - 1,
        "every image": np.arange(steps[0], n + 1),
        "steps": ends,
        "steps and half-way": halves,
    }
    for share in (0.1, 0.2, 0.3):
        start = first_counts(n, steps, share)
        found[f"steps, from {share:.0%}"] = ends[ends >= start]
        found[f"spread, from {share:.0%}"] = sequence_counts(n, steps, share)
    found["spread"] = sequence_counts(n, steps, 0.0)
    return found


def planned(n: int, risk: float, place: NDArray[np.float64], errors: NDArray[np.int64]) -> float:
    """Mean share that the certificate accepts."""
    plan = Plan.of(n, risk, LEVEL)
    p_values = binomial_p_value(errors[:, plan.ranks - 1], plan.ranks, risk)
    accepted = 0.0
    for row, p in zip(place, p_values, strict=True):
        rejected = np.flatnonzero(fixed_sequence(p, 1 - LEVEL, plan.shares))
        if rejected.size:
            accepted += row[min(plan.ranks[rejected[-1]], n - 1)]
    return accepted / len(place)


def measure(draws: int) -> dict[str, dict[tuple[int, float], float]]:
    """Mean share of the oracle's coverage, by sequence, number of images and risk."""
    rng = np.random.default_rng(0)
    shares: dict[str, dict[tuple[int, float], list[float]]] = defaultdict(lambda: defaultdict(list))
    for n, risk, curve in product(SIZES, RISKS, populations()):
        observed = np.cumsum(curve(GRID)) / np.arange(1, len(GRID) + 1)
        kept = np.flatnonzero(observed <= risk)
        # Nothing to be had, by any method, with so few images.
        if not kept.size or GRID[kept[-1]] < 0.1 or (1 - risk) ** (n - 1) > 1 - LEVEL:
            continue
        oracle = GRID[kept[-1]]
        place = np.sort(rng.random((draws, n)), axis=1)
        errors = np.cumsum(rng.random((draws, n)) < curve(place), axis=1)
        for name, counts in sequences(n, risk).items():
            # Written out, the twenty levels use all images that they accept.
            used = counts + (name == "20 levels")
            passed = binomial_p_value(errors[:, used - 1], used, risk) <= 1 - LEVEL
            last = np.logical_and.accumulate(passed, axis=1).sum(axis=1)
            next_image = np.minimum(counts[np.maximum(last - 1, 0)], n - 1)
            accepted = place[np.arange(draws), next_image]
            shares[name][n, risk].append(float(np.mean(accepted * (last > 0))) / oracle)
        shares["plan"][n, risk].append(planned(n, risk, place, errors) / oracle)
    return {
        name: {cell: float(np.mean(values)) for cell, values in cells.items()}
        for name, cells in shares.items()
    }


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=400)
    found = measure(parser.parse_args().draws)
    cells = list(found["20 levels"])
    print("| tests at | mean | " + " | ".join(f"{n}, {100 * r:g} %" for n, r in cells) + " |")
    print("|---|--:|" + "--:|" * len(cells))
    for name, row in sorted(found.items(), key=lambda item: sum(item[1].values())):
        values = [row[cell] for cell in cells]
        lower = sum(a < b - 5e-3 for a, b in zip(values, found["20 levels"].values(), strict=True))
        texts = " | ".join(f"{value:.2f}" for value in values)
        print(f"| {name} ({lower} below 20 levels) | {np.mean(values):.3f} | {texts} |")


if __name__ == "__main__":
    main()
