"""The README's table: `trustvlm` and `auto` against `msp` on image folders, offline models.

    python benchmarks/real_sets.py DATA [--shots 16] [--draw 0]

DATA holds `<set>/{train,test}/<class folder>/*` and `<set>/classes.txt`. The examples are drawn
from `train` (draw 0 is the paper's), the metrics are of `test`, in convention `exact`.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path

from trustvlm import TrustVLM
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.pipeline import EvaluationResult

SCORES = ("msp", "trustvlm", "trustvlm_star", "auto", "auto_star")


def measure(folder: Path, shots: int, draw: int, split: str = "test") -> EvaluationResult:
    """Fit on `train` and evaluate on one split."""
    model = TrustVLM("offline", "offline", classes=folder / "classes.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustVLMWarning)  # a set may have fewer shots of a class
        model.fit(folder / "train", shots_per_class=shots, draw=draw)
    return model.evaluate(folder / split, scores=SCORES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--draw", type=int, default=0)
    options = parser.parse_args()
    print("| set | images | accuracy | AUROC msp | AUROC trustvlm | FPR95 msp | FPR95 trustvlm "
          "| AURC msp | AURC trustvlm | accuracy * | AURC * | AUROC auto | FPR95 auto "
          "| accuracy auto_star |")  # fmt: skip
    print("|---|" + "--:|" * 13)
    rows = []
    for folder in sorted(path.parent for path in options.data.glob("*/train")):
        found = measure(folder, options.shots, options.draw).metrics
        msp, trust, star, auto, auto_star = (found[name] for name in SCORES)
        row = [
            100 * msp.accuracy,
            100 * msp.auroc,
            100 * trust.auroc,
            100 * msp.fpr95,
            100 * trust.fpr95,
            1000 * msp.aurc,
            1000 * trust.aurc,
            100 * star.accuracy,
            1000 * star.aurc,
            100 * auto.auroc,
            100 * auto.fpr95,
            100 * auto_star.accuracy,
        ]
        rows.append(row)
        print(f"| {folder.name} | {msp.n} | " + " | ".join(f"{v:.1f}" for v in row) + " |")
    means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    print("| mean | | " + " | ".join(f"{v:.1f}" for v in means) + " |")


if __name__ == "__main__":
    main()
