"""From how many shots on the scores that correct labels are right more often than the VLM.

    python benchmarks/few_shot_corrections.py ARRAYS ... [--shots 1,2,3,4,6,8] [--draws 5]

ARRAYS are folders with `<set>__train.npz` as `trustvlm bench arrays` reads them. Shots are drawn
from these, and the other images of the same files are labelled: no test image is looked at.
`FEWEST_SHOTS` in `src/trustvlm/scores/prototype_scores.py` rests on what this prints.
"""

import argparse
from pathlib import Path

import numpy as np

from trustvlm import scores
from trustvlm.benchmark import load_arrays
from trustvlm.scores.few_shot import draw_shots

CORRECTING = ("trustvlm_star",)


def gains(train: Path, shots: int, draws: int) -> dict[str, list[float]]:
    """Accuracy minus the VLM's in percentage points, one a draw, by score."""
    arrays = load_arrays(train)
    by_score: dict[str, list[float]] = {name: [] for name in CORRECTING}
    for draw in range(draws):
        chosen = draw_shots(arrays.labels, arrays.n_classes, shots, draw=draw).indices
        others = np.setdiff1d(np.arange(len(arrays.labels)), chosen)
        labels = arrays.labels[others]
        evidence = arrays.shots(chosen).with_images(
            logits=arrays.logits[others],
            features=arrays.features[others],
            image_embeddings=arrays.image_embeddings[others],
        )
        vlm = (evidence.logits.argmax(axis=1) == labels).mean()
        for name in CORRECTING:
            right = (scores.apply(name, evidence).prediction == labels).mean()
            by_score[name].append(100 * (right - vlm))
    return by_score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="ARRAYS")
    parser.add_argument("--shots", default="1,2,3,4,6,8")
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    wanted = [int(n) for n in given.shots.split(",")]
    print(f"{'set':28}{'score':16}" + "".join(f"{n:>8}" for n in wanted))
    for folder in given.folders:
        for train in sorted(folder.glob("*__train.npz")):
            few = np.bincount(load_arrays(train).labels).min()
            columns = [gains(train, n, given.draws) if n < few else None for n in wanted]
            for name in CORRECTING:
                cells = ("-" if c is None else f"{np.mean(c[name]):+.1f}" for c in columns)
                row = "".join(f"{cell:>8}" for cell in cells)
                print(f"{train.stem.removesuffix('__train'):28}{name:16}{row}", flush=True)


if __name__ == "__main__":
    main()
