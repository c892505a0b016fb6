"""Do as many more labelled images as a failed certificate asks for suffice?

    python benchmarks/images_needed.py [--draws 4]

Populations by the risk of the image at each place v, most trusted first: even ones, logistic curves
with a floor, and heads of 5 to 30 % before a rest that is mostly wrong, at risks of 5 and 10 %.
Certification is possible where some share of at least 1/32 has a risk of at most .95 times the
wanted one. As many images as asked for are added, six times a set; sets that ask for more than
20,000 are counted apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trustvlm.decisions import certify

SIZES = (20, 60, 150, 400)
MOST = 20_000
GRID = np.linspace(0, 1, 4001)[1:]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def populations(r: float) -> Iterator[Curve]:
    """Risks of the image at each place."""
    for f in (0, 0.1, 0.3, 0.5, 0.7, 0.85, 1.1, 1.5, 3, 8):
        yield lambda v, f=f: np.full_like(v, f * r)
    for c, w, f in product((0.08, 0.2, 0.4, 0.7), (0.02, 0.1), (0, 0.2 * r, 0.6 * r)):
        yield lambda v, c=c, w=w, f=f: f + 0.7 * special.expit((v - c) / w)
    for a, f in product((0.05, 0.1, 0.3), (0, 0.5 * r)):
        yield lambda v, a=a, f=f: np.where(v <= a, f, 0.4)
    for f in (1.2, 3):
        yield lambda v, f=f: np.where(v < 0.2, f * r, 0.6)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=4)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    rows = []
    for r in (0.05, 0.1):
        for curve in populations(r):
            risk = np.cumsum(curve(GRID)) / np.arange(1, len(GRID) + 1)
            margin = 1 - risk[GRID >= 1 / 32].min() / r
            for n, _ in product(SIZES, range(draws)):
                v = rng.random(n)
                right = rng.random(n) >= curve(v)
                certificate = certify(-v, right, r)
                if certificate.certified:
                    continue
                needed, success = certificate.n_needed, np.nan
                if margin >= 0.05 and n + needed <= MOST:
                    success = 0.0
                    for _ in range(6):
                        new = rng.random(int(needed))
                        judged = np.r_[right, rng.random(len(new)) >= curve(new)]
                        success += certify(-np.r_[v, new], judged, r).certified / 6
                rows.append((n, margin, needed, success))
    table = np.array(rows)
    print(
        "| labelled images | sets, possible | of them enough | margin .3 or more "
        "| more than 20,000 | said not to help | sets, impossible | said not to help "
        "| risk 1.4 times or more |\n|--:" + "|--:" * 8 + "|"
    )
    for n in (*SIZES, 0):
        own = table[(table[:, 0] == n) | (n == 0)]
        possible, not_possible = own[own[:, 1] >= 0.05], own[own[:, 1] < 0.05]
        asked = possible[:, 2]
        cells = [
            f"{len(possible)}",
            f"{np.nanmean(possible[:, 3]):.2f}",
            f"{np.nanmean(possible[possible[:, 1] >= 0.3, 3]):.2f}",
            f"{np.mean(np.isfinite(asked) & (asked + possible[:, 0] > MOST)):.2f}",
            f"{np.isinf(asked).mean():.2f}",
            f"{len(not_possible)}",
            f"{np.isinf(not_possible[:, 2]).mean():.2f}",
            f"{np.isinf(not_possible[not_possible[:, 1] < -0.4, 2]).mean():.2f}",
        ]
        print(f"| {n or 'all'} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
