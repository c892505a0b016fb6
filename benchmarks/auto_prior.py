"""How the prior of `auto` was chosen: on training images, leaving out one set at a time.

    python benchmarks/auto_prior.py FOLDER ... [--draws 2]

Each FOLDER holds `<set>__train.npz` as `trustvlm bench arrays` reads them; test images are not
looked at. At one shot a class the prior alone decides. `auto_star` judges the training images that
were not drawn, with every combination of the weight of the text, of the scorers, and of the VLM's
own image space; the best for a set is that with the smallest AURC over the other sets, those of
each folder counting as much as those of the others.
"""

import argparse
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np

from trustvlm import metrics, scores
from trustvlm.benchmark import load_arrays
from trustvlm.scores import auto
from trustvlm.scores.few_shot import draw_shots

TEXT = (0.6, 0.75, 0.9, 1.05)
VISUAL = (0.2, 0.25, 0.3, 0.4, 0.5)
SECOND = (0.1, 0.3, 0.6)


def measure(data, draws: int) -> dict[tuple[float, float, float], tuple[float, float]]:
    """AURC x1000 of `auto_star`, and accuracy less the VLM's in points, by prior."""
    own = {name: getattr(data, name) for name in ("logits", "features", "image_embeddings")}
    by_prior: dict[tuple[float, float, float], list[tuple[float, float]]] = {}
    for draw in range(draws):
        drawn = draw_shots(data.labels, len(data.class_names), 1, draw).indices
        rest = np.setdiff1d(np.arange(len(data)), drawn)
        labels = data.labels[rest]
        vlm = 100 * float((data.logits[rest].argmax(axis=1) == labels).mean())
        for prior in product(TEXT, VISUAL, SECOND):
            auto._TEXT = prior[0]
            auto._VISUAL = {"features": prior[1], "image_embeddings": prior[1] * prior[2]}
            result = scores.compute(
                "auto_star",
                **{name: array[rest] for name, array in own.items()},
                **{f"support_{name}": array[drawn] for name, array in own.items()},
                support_labels=data.labels[drawn],
            )
            correct = result.prediction == labels
            aurc = 1000 * metrics.aurc(result.confidence, correct)
            by_prior.setdefault(prior, []).append((aurc, 100 * float(correct.mean()) - vlm))
    return {prior: tuple(map(fmean, zip(*each, strict=True))) for prior, each in by_prior.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    chosen = (auto._TEXT, auto._VISUAL["features"], 0.3)
    measured: dict[str, dict] = {}
    groups: list[list[str]] = []
    for folder in options.folders:
        groups.append([])
        for file in sorted(folder.glob("*__train.npz")):
            name = file.name.removesuffix("__train.npz")
            measured[name] = measure(load_arrays(file), options.draws)
            groups[-1].append(name)

    def loss(prior, without: str | None = None) -> float:
        """Mean over folders of the mean logarithm of the AURC."""
        kept = [[name for name in group if name != without] for group in groups]
        return fmean(fmean(np.log(measured[n][prior][0]) for n in group) for group in kept if group)

    print("| set | AURC x1000 | accuracy less the VLM's | best without it (text, visual, second) |")
    print("|---|--:|--:|---|")
    for name, by_prior in measured.items():
        best = min(by_prior, key=lambda prior, name=name: loss(prior, name))
        aurc, gain = by_prior[chosen]
        print(f"| {name} | {aurc:.1f} | {gain:+.1f} | {', '.join(map(str, best))} |")
    every = list(product(TEXT, VISUAL, SECOND))
    best = min(every, key=loss)
    ratio = np.exp(loss(chosen) - loss(best))
    print(f"\nOver all: best {best}; AURC with the chosen {chosen} {ratio:.3f} times as large.")


if __name__ == "__main__":
    main()
