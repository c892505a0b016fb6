"""Certified thresholds and P(correct) on real sets: are the promises kept, and what do they cost?

    python benchmarks/decisions.py EMBEDDINGS [--splits 1000] [--figure FILE.svg]

EMBEDDINGS holds `<set>__train.npz` and `<set>__test*.npz` as `trustvlm bench arrays` reads them.
The scores learn from 16 examples a class (the paper's draw) of `train`. Each test split is cut in
two at random, again and again: one half is the calibration set, the other stands for new images.

Whether the risk is exceeded is measured twice, since a test half is itself a small sample.

* `over, halves`: splits in which the other half has more errors among the accepted than a risk just
  kept would show in 5 % of such halves (exact binomial test). If the promise is kept, this share is
  at most 5 % for certificates that may fail and, for those that hold, the size of that test, which
  is worked out for every split (`allowed`).
* `over, exact`: calibration sets of the same size drawn from the split with replacement, as if the
  split were the population. Then the risk of every threshold is known, without a test half's noise,
  and the draws are independent: at most 5 % of them may exceed it.

Both shares are compared with what is allowed by one-sided binomial tests, and the smallest
p-values corrected for all rows by Bonferroni.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy
from mapie.risk_control import BinaryClassificationController
from numpy.typing import NDArray
from scipy import stats

from decision_data import Judged, judged
from decision_probabilities import print_probabilities
from decision_sizes import print_sizes
from former_sequence import former
from trustvlm.decisions import certify
from trustvlm.risk_control.tests import binomial_p_value, fewest_images

SCORES = ("trustvlm", "auto")
RISKS = (0.02, 0.05, 0.1)
LEVEL = 0.95
RIVALS = ("before", "20 levels", "20 levels, literal", "MAPIE", "MAPIE, sequence")
PROCEDURES = {"MAPIE": "bonferroni_holm", "MAPIE, sequence": "fixed_sequence"}


def twenty_levels(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], risk: float, *, skip: bool
) -> float:
    """Exact binomial fixed-sequence testing over 20 levels of coverage, written out.

    Read literally it begins at 5 % of the images, where few sets can pass; with `skip` it begins
    at the first level with enough images.
    """
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    counts = np.ceil(n * np.arange(1, 21) / 20).astype(int)
    if skip:
        counts = counts[counts >= fewest_images(risk, LEVEL)]
    errors = np.cumsum(~correct[order])[counts - 1]
    passed = np.logical_and.accumulate(binomial_p_value(errors, counts, risk) <= 1 - LEVEL)
    return float(confidence[order][counts[passed.sum() - 1] - 1]) if passed.any() else np.inf


def mapies(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], risk: float, procedure: str
) -> float:
    """MAPIE's Learn-then-Test with its default 100 thresholds; its default is Bonferroni-Holm."""
    controller = BinaryClassificationController(
        lambda p: np.stack([1 - p, p], axis=1),
        "precision",
        target_level=1 - risk,
        confidence_level=LEVEL,
        fwer_method=procedure,
    )
    controller.calibrate(confidence, correct.astype(int))
    best = controller.best_predict_param
    return np.inf if best is None or np.isnan(best) else float(best)


def as_probability(score: str, confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put a score on a scale of 0 to 1, as MAPIE's thresholds want it, without any labels."""
    return (confidence + 1) / 3 if score == "trustvlm" else 1 / (1 + np.exp(-confidence))


@dataclass(frozen=True)
class Row:
    """One score on one split at one risk: mean coverages of the other half, and broken promises."""

    oracle: float
    ours: float
    beside_mapie: float
    rivals: dict[str, float]
    observed: float
    flagged: float
    allowed: float
    exact: float
    splits: int

    @property
    def p_values(self) -> tuple[float, float]:
        """Of the hypotheses that the promise is kept: by halves, and exactly."""
        return tuple(
            float(stats.binom.sf(round(share * self.splits) - 1, self.splits, allowed))
            for share, allowed in ((self.flagged, self.allowed), (self.exact, 1 - LEVEL))
        )


def measure(
    score: str, data: Judged, risk: float, splits: int, with_mapie: int, rng: np.random.Generator
) -> Row:
    """Halve a split again and again; MAPIE sees the first `with_mapie` of the halves."""
    coverage: dict[str, list[float]] = {name: [] for name in ("ours", *RIVALS)}
    observed = flagged = 0
    sizes = 0.0
    on_scale = as_probability(score, data.confidence)
    for split in range(splits):
        order = rng.permutation(data.n)
        known, fresh = order[: data.n // 2], order[data.n // 2 :]
        c, right = data.rows(known)
        thresholds = {
            "ours": certify(c, right, risk, LEVEL).threshold,
            "before": former(c, right, risk, LEVEL),
            "20 levels": twenty_levels(c, right, risk, skip=True),
            "20 levels, literal": twenty_levels(c, right, risk, skip=False),
        }
        for method, threshold in thresholds.items():
            coverage[method].append(float(np.mean(data.confidence[fresh] >= threshold)))
        for name, procedure in PROCEDURES.items() if split < with_mapie else ():
            theirs = mapies(on_scale[known], right, risk, procedure)
            coverage[name].append(float(np.mean(on_scale[fresh] >= theirs)))
        accepted = data.confidence[fresh] >= thresholds["ours"]
        k, wrong = int(accepted.sum()), int((accepted & ~data.correct[fresh]).sum())
        observed += wrong > risk * k
        critical, size = noise_test(k, risk)
        flagged += wrong > critical
        sizes += size
    return Row(
        oracle=data.oracle(risk),
        ours=float(np.mean(coverage["ours"])),
        beside_mapie=float(np.mean(coverage["ours"][:with_mapie])),
        rivals={name: float(np.mean(coverage[name])) for name in RIVALS},
        observed=observed / splits,
        flagged=flagged / splits,
        allowed=1 - LEVEL + LEVEL * sizes / splits,
        exact=redrawn(data, risk, splits, rng),
        splits=splits,
    )


@cache
def noise_test(accepted: int, risk: float) -> tuple[float, float]:
    """Errors that a risk just kept exceeds in at most 5 % of samples, and in how many exactly."""
    if not accepted:
        return 0.0, 0.0
    critical = float(stats.binom.isf(0.05, accepted, risk))
    return critical, float(stats.binom.sf(critical, accepted, risk))


def redrawn(data: Judged, risk: float, draws: int, rng: np.random.Generator) -> float:
    """Share of calibration sets, drawn from the split as a population, that break the promise."""
    order = np.argsort(-data.confidence, kind="stable")
    descending = data.confidence[order]
    errors = np.cumsum(~data.correct[order])
    broken = 0
    for _ in range(draws):
        found = certify(*data.rows(rng.integers(0, data.n, data.n // 2)), risk, LEVEL)
        if found.certified:
            k = int(np.searchsorted(-descending, -found.threshold, side="right"))
            broken += errors[k - 1] > risk * k
    return broken / draws


def print_thresholds(root: Path, splits: int, with_mapie: int) -> None:
    """Print a table for each score, and what it comes to."""
    summary = []
    for score in SCORES:
        print(f"\n### Certified thresholds, `{score}`, {splits} random halves of each test split\n")
        print(
            "| split | n | risk | oracle | ours | before | 20 levels | literal | MAPIE "
            "| MAPIE, sequence | (ours there) | over, observed | over, halves | allowed "
            "| over, exact |\n|---|" + "--:|" * 14
        )
        rows = []
        for data in judged(root, score):
            for risk in RISKS:
                row = measure(score, data, risk, splits, with_mapie, np.random.default_rng(0))
                rows.append((risk, row))
                coverages = row.oracle, row.ours, *row.rivals.values(), row.beside_mapie
                shares = row.observed, row.flagged, row.allowed, row.exact
                # Where nobody certifies anything there is nothing to see.
                if not any(coverages[1:]) and not any(shares[:2] + shares[3:]):
                    continue
                cells = [f"{c:.3f}" for c in coverages] + [f"{100 * s:.1f} %" for s in shares]
                print(f"| {data.name} | {data.n} | {risk:g} | " + " | ".join(cells) + " |")
        summary += [_summary(score, risk, [r for k, r in rows if k == risk]) for risk in RISKS]
    tests = 2 * len(rows)
    print(f"\n### What it comes to\n\nAmong {tests} rows, p-values times {tests}.\n")
    print(
        "| score | risk | mean coverage: oracle | ours | before | 20 levels | literal "
        "| MAPIE | MAPIE, sequence (ours there) | ours of oracle | 20 levels of oracle "
        "| ours lower than before (most) | than 20 levels | than MAPIE's best (most) "
        "| over, halves | allowed | over, exact | smallest p: halves | exact |\n|---|" + "--:|" * 18
    )
    for line, p_values in summary:
        corrected = " | ".join(f"{min(1.0, p * tests):.2g}" for p in p_values)
        print(f"| {line} | {corrected} |")


def _summary(score: str, risk: float, rows: list[Row]) -> tuple[str, tuple[float, float]]:
    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    oracle, ours = mean([r.oracle for r in rows]), mean([r.ours for r in rows])
    rivals = {name: mean([r.rivals[name] for r in rows]) for name in RIVALS}
    less = {
        "before": [r.rivals["before"] - r.ours for r in rows],
        "20 levels": [r.rivals["20 levels"] - r.ours for r in rows],
        "MAPIE": [max(r.rivals[name] for name in PROCEDURES) - r.beside_mapie for r in rows],
    }
    # A twentieth of a percent of coverage is the noise of so many splits.
    lower = {
        name: f"{sum(gap > 5e-4 for gap in gaps)} of {len(rows)} ({max(0.0, *gaps):.3f})"
        for name, gaps in less.items()
    }
    cells = [
        *(score, f"{risk:g}", f"{oracle:.3f}", f"{ours:.3f}"),
        *(f"{rivals[name]:.3f}" for name in ("before", "20 levels", "20 levels, literal")),
        f"{rivals['MAPIE']:.3f}",
        f"{rivals['MAPIE, sequence']:.3f} ({mean([r.beside_mapie for r in rows]):.3f})",
        *(f"{ours / oracle:.2f}", f"{rivals['20 levels'] / oracle:.2f}"),
        *lower.values(),
        *(f"{100 * mean([r.flagged for r in rows]):.1f} %",),
        *(f"{100 * mean([r.allowed for r in rows]):.1f} %",),
        f"{100 * mean([r.exact for r in rows]):.1f} %",
    ]
    smallest = tuple(min(r.p_values[i] for r in rows) for i in range(2))
    return " | ".join(cells), smallest


def main() -> None:
    """Print everything as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--only", default="thresholds,sizes,probabilities")
    parser.add_argument("--figure", type=Path, help="Write coverage against size as SVG.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"MAPIE {version('mapie')}, ", end="")
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}")
    wanted = options.only.split(",")
    if "thresholds" in wanted:
        print_thresholds(options.embeddings, options.splits, min(100, options.splits))
    if "sizes" in wanted:
        print_sizes(options.embeddings, max(10, options.splits // 5), options.figure)
    if "probabilities" in wanted:
        print_probabilities(options.embeddings, SCORES, max(2, options.splits // 20))


if __name__ == "__main__":
    main()
