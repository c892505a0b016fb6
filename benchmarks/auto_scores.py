"""`auto` and its kin against the paper's scores, over draws and numbers of shots.

    python benchmarks/auto_scores.py EMBEDDINGS [--shots 1,4,16] [--draws 5]

EMBEDDINGS holds `<set>__train.npz` and `<set>__test*.npz` as `trustvlm bench arrays` reads them.
"""

import argparse
from pathlib import Path

import numpy as np

from trustvlm import metrics, scores
from trustvlm.benchmark import load_arrays
from trustvlm.scores.few_shot import draw_shots

COMPARED = (
    "msp",
    "trustvlm",
    "trustvlm_star",
    "auto",
    "auto_star",
    "auto_adapted",
    "auto_adapted_star",
    "auto_unlabelled",
    "auto_unlabelled_star",
)


def excess(confidence: np.ndarray, correct: np.ndarray) -> float:
    """AURC above that of a perfect ranking of the same predictions."""
    return metrics.aurc(confidence, correct) - metrics.aurc(correct.astype(float), correct)


def measured(result, labels) -> tuple[float, float, float]:
    correct = result.prediction == labels
    return (
        1000 * metrics.aurc(result.confidence, correct),
        1000 * excess(result.confidence, correct),
        100 * correct.mean(),
    )


def run(folder: Path, shots: int, draws: int) -> dict[str, dict[str, np.ndarray]]:
    """Return AURC, excess AURC (both x1000) and accuracy (percent) by score and split."""
    found: dict[str, dict[str, list]] = {name: {} for name in COMPARED}
    for train in sorted(folder.glob("*__train.npz")):
        support = load_arrays(train)
        stem = train.stem.removesuffix("__train")
        tests = [load_arrays(test) for test in sorted(folder.glob(f"{stem}__test*.npz"))]
        for draw in range(draws):
            chosen = draw_shots(support.labels, support.n_classes, shots, draw=draw).indices
            known = support.shots(chosen)
            for name in COMPARED:
                score = scores.prepare(name, known)
                for test in tests:
                    evidence = known.with_images(
                        logits=test.logits,
                        features=test.features,
                        image_embeddings=test.image_embeddings,
                    )
                    cells = found[name].setdefault(test.name, [])
                    cells.append(measured(score(evidence), test.labels))
    return {s: {t: np.mean(v, axis=0) for t, v in cells.items()} for s, cells in found.items()}


def show(found: dict[str, dict[str, np.ndarray]], shots: int, draws: int) -> None:
    splits = list(found["msp"])
    table = {name: np.stack([cells[s] for s in splits]) for name, cells in found.items()}
    print(f"\n{shots} shots, {draws} draws, {len(splits)} splits")
    print(f"{'':34}" + "".join(f"{name[:13]:>14}" for name in COMPARED))
    for i, split in enumerate(splits):
        print(f"{split:34}" + "".join(f"{table[name][i, 1]:14.1f}" for name in COMPARED))
    for label, column in (("mean AURC", 0), ("mean excess AURC", 1), ("mean accuracy", 2)):
        row = "".join(f"{table[name][:, column].mean():14.1f}" for name in COMPARED)
        print(f"{label:34}" + row)
    for name in ("auto", "auto_adapted"):
        ratio = table[name][:, 1].mean() / table["trustvlm"][:, 1].mean()
        print(f"{name}: {ratio:.3f} of the excess AURC of trustvlm (ratio of means)")
    for name in ("auto_star", "auto_adapted_star"):
        ratio = np.exp(np.log(table[name][:, 0] / table["trustvlm_star"][:, 0]).mean())
        print(f"{name}: {ratio:.3f} of the AURC of trustvlm_star (geometric mean)")
    ratios = table["auto_unlabelled"][:, 0] / table["msp"][:, 0]
    print(
        f"auto_unlabelled: {ratios.mean():.3f} of the AURC of msp (mean ratio), "
        f"lower on {(ratios < 1).sum()} of {len(ratios)}, worst {ratios.max():.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", default="1,4,16")
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    for shots in map(int, options.shots.split(",")):
        show(run(options.folder, shots, options.draws), shots, options.draws)


if __name__ == "__main__":
    main()
