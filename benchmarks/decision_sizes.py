"""Coverage of a certified threshold against the number of labelled images, as table and figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from decision_data import Judged, judged
from trustvlm.decisions import certify
from trustvlm.plots.figure import SERIES, Figure

SIZES = (25, 50, 100, 200, 400, 800)
RISKS = (0.05, 0.1)
LEAST = 700
LEVEL = 0.95
Shares = dict[tuple[str, float], dict[int, tuple[float, float]]]


def by_size(
    data: Judged, risk: float, draws: int, rng: np.random.Generator
) -> dict[int, tuple[float, float]]:
    """For each size of the calibration set: coverage of the rest, and share with a threshold."""
    found = {}
    for size in (s for s in SIZES if s <= 0.8 * data.n):
        coverages = []
        for _ in range(draws):
            order = rng.permutation(data.n)
            known, fresh = order[:size], order[size:]
            threshold = certify(*data.rows(known), risk, LEVEL).threshold
            coverages.append(float(np.mean(data.confidence[fresh] >= threshold)))
        found[size] = float(np.mean(coverages)), float(np.mean(np.array(coverages) > 0))
    return found


def print_sizes(root: Path, draws: int, figure: Path | None) -> None:
    """Print the table for the splits with enough images, `auto_star`; draw it if wanted."""
    rows: Shares = {}
    oracles = {}
    for data in judged(root, "auto_star"):
        if data.n < LEAST:
            continue
        for risk in RISKS:
            rows[data.name, risk] = by_size(data, risk, draws, np.random.default_rng(1))
            oracles[data.name, risk] = data.oracle(risk)
    print(f"\n### Coverage against the number of labelled images, `auto_star`, {draws} draws\n")
    print("| split | risk | oracle |" + "".join(f" {s} images |" for s in SIZES))
    print("|---|--:|--:|" + "--:|" * len(SIZES))
    for (name, risk), row in rows.items():
        cells = [f"{row[s][0]:.2f} ({row[s][1]:.0%})" if s in row else "" for s in SIZES]
        print(f"| {name} | {risk:g} | {oracles[name, risk]:.2f} | " + " | ".join(cells) + " |")
    if figure is not None:
        drawing(rows, oracles).save(figure)


def drawing(rows: Shares, oracles: dict[tuple[str, float], float]) -> Figure:
    """Coverage as a share of the oracle's, one line for each split and risk."""
    names = list(dict.fromkeys(name for name, _ in rows))

    def lines(body) -> None:
        axes = body.subplots()
        for (name, risk), row in rows.items():
            axes.plot(
                list(row),
                [100 * row[s][0] / oracles[name, risk] for s in row],
                color=SERIES[names.index(name)],
                linestyle="-" if risk == RISKS[-1] else "--",
                marker="o",
                label=f"{name.split('__')[0]}, risk {100 * risk:g} %",
            )
        axes.set_xscale("log")
        axes.set_xticks(SIZES, [str(s) for s in SIZES])
        axes.minorticks_off()
        axes.set_ylim(0, 100)
        axes.set_xlabel("labelled images to calibrate on")
        axes.set_ylabel("coverage, share of an oracle's (%)")
        axes.legend(frameon=False, loc="lower right")

    return Figure(
        name="coverage",
        title="Coverage against the size of the calibration set",
        caption="Share of new images accepted by a threshold certified with 95 % confidence, "
        "as a share of what an oracle would accept, against the number of labelled images.",
        width=560,
        height=380,
        draw=lines,
    )
