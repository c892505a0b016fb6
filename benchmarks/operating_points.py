"""How often the intervals of risk at a coverage and of coverage at a risk miss the truth.

Run it as `python benchmarks/operating_points.py`; it takes a few minutes. The populations are
known, so that the risk and the coverage of every threshold on all images are known, too. Intervals
of 95 % should miss in at most 5 % of draws.
"""

from __future__ import annotations

import numpy as np

from trustvlm import metrics

DRAWS = 4000
LEVELS = 10_000

# The chance of an error at each of equally likely confidences, from the least trusted up.
POPULATIONS = {
    "even, 0.4 to 0": np.linspace(0.4, 0, LEVELS),
    "even, 0.1 to 0": np.linspace(0.1, 0, LEVELS),
    "no information": np.full(LEVELS, 0.1),
    "a step at half": np.where(np.arange(LEVELS) < LEVELS // 2, 0.5, 0.0),
    "inverted, 0 to 0.2": np.linspace(0, 0.2, LEVELS),
    "three values": np.array([0.5, 0.2, 0.02]),
    "two values": np.array([1.0, 0.0]),
}


def misses(errors: np.ndarray, n: int, coverage: float, risk: float) -> list[float]:
    """Share of draws in which each interval misses, and the mean width of the two."""
    rng = np.random.default_rng(0)
    levels = len(errors)
    true_risk = np.cumsum(errors[::-1])[::-1] / np.arange(levels, 0, -1)
    allowed = np.flatnonzero(true_risk <= risk)
    seen = np.zeros((DRAWS, 4))
    for draw in range(DRAWS):
        confidence = rng.integers(levels, size=n)
        correct = rng.random(n) >= errors[confidence]
        point = metrics.risk_at_coverage(confidence, correct, coverage)
        truth = true_risk[int(point.threshold)]
        reach = metrics.coverage_at_risk(confidence, correct, risk)
        target = np.mean(confidence >= allowed[0]) if allowed.size else 0.0
        seen[draw] = (
            not point.risk_low <= truth <= point.risk_high,
            not reach.low <= target <= reach.high,
            point.risk_high - point.risk_low,
            reach.high - reach.low,
        )
    return seen.mean(axis=0).tolist()


def main() -> None:
    print(f"{DRAWS:,} draws; risk at a coverage of 0.5, coverage at a risk of 0.1; 95 %\n")
    print("| population | n | risk missed | width | coverage missed | width |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, errors in POPULATIONS.items():
        for n in (30, 100, 1000):
            risk, coverage, risk_width, coverage_width = misses(errors, n, 0.5, 0.1)
            print(
                f"| {name} | {n} | {risk:.3f} | {risk_width:.2f} "
                f"| {coverage:.3f} | {coverage_width:.2f} |"
            )


if __name__ == "__main__":
    main()
