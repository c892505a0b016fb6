"""The tables in docs/models.md: what selecting settings and fine-tuning prototypes are worth.

    python benchmarks/settings.py EMBEDDINGS [--shots 2,4,8,16] [--draws 5]

EMBEDDINGS holds `<set>__train.npz` and `<set>__test*.npz` as `trustvlm bench arrays` reads them.
The first table compares selection on the shots (`--preset loo`) with the untuned settings, as
ratios of AURC: the geometric mean over test files of the ratio of means over draws; below 1 is
better. The second one compares TrustVLM*(F) with TrustVLM* at the most shots, in accuracy: in
cross-validation on the shots (4 folds) and on `<set>__test`, with the untuned settings and with
those selected. The settings of the cross-validation are selected on all its shots.
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections import defaultdict
from pathlib import Path

from trustvlm.benchmark import ArraySet, load_arrays, run_study
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.pipeline.cross_validate import cross_validate
from trustvlm.pipeline.select import select_by_holding_out
from trustvlm.scores.few_shot import draw_shots

STAR, TUNED = "trustvlm_star", "trustvlm_star_f"
SCORES = ("trustvlm", STAR, TUNED)
PRESETS = ("untuned", "loo")
Means = dict[tuple[str, str, int, str], dict[str, float]]


def measure(support: ArraySet, tests: list[ArraySet], shots: list[int], draws: int) -> Means:
    """Means over draws of AURC and accuracy, by (test, score, shots, preset)."""
    found: Means = {}
    for preset in PRESETS:
        rows = defaultdict(list)
        study = run_study(support, tests, scores=SCORES, shots=shots, draws=draws, preset=preset)
        for row in study.rows:
            rows[row["dataset"], row["score"], row["shots"], preset].append(row)
        for key, same in rows.items():
            found[key] = {m: statistics.fmean(r[m] for r in same) for m in ("aurc", "accuracy")}
    return found


def on_the_shots(support: ArraySet, shots: int, draws: int) -> dict[tuple[str, str], float]:
    """Cross-validated accuracy by (score, preset), mean over draws."""
    found = defaultdict(list)
    for draw in range(draws):
        known = support.shots(
            draw_shots(support.labels, support.n_classes, shots, draw=draw).indices
        )
        for preset in PRESETS:
            chosen = {} if preset == "untuned" else select_by_holding_out(STAR, known).parameters
            result = cross_validate(known, (STAR, TUNED), parameters={STAR: chosen, TUNED: chosen})
            for score in (STAR, TUNED):
                found[score, preset].append(result.metrics[score].accuracy)
    return {key: statistics.fmean(values) for key, values in found.items()}


def ratio(means: Means, tests: list[str], score: str, shots: int) -> float:
    """Geometric mean of AURC selected / AURC untuned."""
    logs = [
        math.log(means[t, score, shots, "loo"]["aurc"] / means[t, score, shots, "untuned"]["aurc"])
        for t in tests
    ]
    return math.exp(statistics.fmean(logs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--shots", default="2,4,8,16")
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    shots = [int(n) for n in options.shots.split(",")]
    warnings.simplefilter("ignore", TrustVLMWarning)  # a set may have fewer shots of a class
    means: Means = {}
    folded = {}
    for train in sorted(options.embeddings.glob("*__train.npz")):
        name = train.name.removesuffix("__train.npz")
        support = load_arrays(train)
        tests = [load_arrays(p) for p in sorted(options.embeddings.glob(f"{name}__test*.npz"))]
        means |= measure(support, tests, shots, options.draws)
        folded[name] = on_the_shots(support, max(shots), options.draws)
    tests = list(dict.fromkeys(test for test, *_ in means))
    groups = {
        "same domain": [test for test in tests if test.endswith("__test")],
        "other domain": [test for test in tests if not test.endswith("__test")],
    }
    print("| shots | test files | " + " | ".join(SCORES) + " |\n|--:|---|" + "--:|" * len(SCORES))
    for n in shots:
        for title, members in groups.items():
            if members:
                cells = " | ".join(f"{ratio(means, members, s, n):.3f}" for s in SCORES)
                print(f"| {n} | {title} ({len(members)}) | {cells} |")
    print("\n| set | " + " | ".join(f"{p}: shots * | (F) | test * | (F)" for p in PRESETS) + " |")
    print("|---|" + "--:|" * 8)
    wins: dict[tuple[str, str], int] = defaultdict(int)
    for name, cv in folded.items():
        cells = []
        for preset in PRESETS:
            test = [
                means[f"{name}__test", s, max(shots), preset]["accuracy"] for s in (STAR, TUNED)
            ]
            values = [cv[STAR, preset], cv[TUNED, preset], *test]
            cells += [f"{100 * value:.1f}" for value in values]
            wins[preset, "on the shots"] += values[1] >= values[0]
            wins[preset, "on the tests"] += values[3] >= values[2]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for (preset, where), count in wins.items():
        print(f"{preset}, {where}: (F) better or equal on {count} of {len(folded)} sets")


if __name__ == "__main__":
    main()
