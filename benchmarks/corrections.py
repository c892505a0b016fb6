"""What corrections are worth; the table in benchmarks/RESULTS.md and the curve in docs/serve.md.

    python benchmarks/corrections.py EMBEDDINGS [--shots 4] [--splits 10] [--figure FILE.svg]

Half of a test set comes in, the other half is only measured. The model has a few examples a class.
Up to 100 of the incoming images are answered rightly and join the examples: the most doubtful ones
by the model's own score, or as many random ones. AURC is measured on the other half, which nobody
looked at, and on what of the incoming half was never answered, by both models. Nothing is tuned.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trustvlm import metrics
from trustvlm.benchmark import ArraySet, load_arrays
from trustvlm.plots.figure import DASHES, MARKERS, SERIES, Figure
from trustvlm.scores import compute
from trustvlm.scores.few_shot import draw_shots

SETS = ("caltech101", "cifar10", "dtd10", "eurosat", "flowers102", "imagenette", "oxford_pets37")
ANSWERS = (0, 10, 25, 50, 75, 100)


@dataclass(frozen=True)
class Examples:
    """Examples as arrays."""

    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    def and_also(self, data: ArraySet, rows: np.ndarray) -> Examples:
        """Some images of a set as further examples."""
        pairs = zip(
            (self.features, self.labels, self.logits),
            (data.features, data.labels, data.logits),
            strict=True,
        )
        return Examples(*(np.concatenate([own, more[rows]]) for own, more in pairs))


def judged(
    score: str, data: ArraySet, rows: np.ndarray, examples: Examples
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness of a score on some images."""
    found = compute(
        score,
        logits=data.logits[rows],
        features=data.features[rows],
        support_features=examples.features,
        support_labels=examples.labels,
        support_logits=examples.logits,
    )
    return found.confidence, found.prediction == data.labels[rows]


def measure(
    root: Path, name: str, score: str, per_class: int, splits: int
) -> dict[str, np.ndarray]:
    """AURC on the other half by number of answers, and on what was not answered before and after.

    `(splits, answers)` for `doubtful` and `random`; `(splits, 2)` for `rest`.
    """
    train, test = (load_arrays(root / f"{name}__{part}.npz") for part in ("train", "test"))
    drawn = draw_shots(train.labels, len(train.class_names), per_class).indices
    first = Examples(train.features[drawn], train.labels[drawn], train.logits[drawn])
    found: dict[str, list] = {"doubtful": [], "random": [], "rest": []}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(test.labels))
        incoming, other = np.array_split(order, 2)
        confidence, _ = judged(score, test, incoming, first)
        doubtful = incoming[np.argsort(confidence, kind="stable")]
        for kind, queue in (("doubtful", doubtful), ("random", incoming)):
            grown = [first.and_also(test, queue[:n]) for n in ANSWERS]
            found[kind].append([metrics.aurc(*judged(score, test, other, e)) for e in grown])
        rest, last = doubtful[ANSWERS[-1] :], first.and_also(test, doubtful[: ANSWERS[-1]])
        found["rest"].append([metrics.aurc(*judged(score, test, rest, e)) for e in (first, last)])
    return {kind: np.array(values) for kind, values in found.items()}


def drawing(everything: dict[tuple[str, str], dict[str, np.ndarray]], per_class: int) -> Figure:
    """AURC by answers, relative to none; the geometric mean over sets, a line for each score."""
    scores = list(dict.fromkeys(score for score, _ in everything))

    def draw(body) -> None:
        axes = body.subplots()
        for i, score in enumerate(scores):
            curves = [
                found["doubtful"].mean(0)
                for (other, _), found in everything.items()
                if other == score
            ]
            ratios = np.array([curve / curve[0] for curve in curves])
            axes.plot(
                ANSWERS,
                np.exp(np.log(ratios).mean(0)),
                color=SERIES[i],
                linestyle=DASHES[i],
                marker=MARKERS[i],
                label=score,
            )
        axes.set_xlabel("doubtful images that were answered and became examples")
        axes.set_ylabel("AURC on other images, relative to none")
        axes.legend(frameon=False)

    return Figure(
        name="corrections",
        title="What answers are worth",
        caption=(
            "AURC on images that nobody looked at, relative to that without answers; geometric "
            f"mean over {len(SETS)} real sets, {per_class} examples a class at first; lower is "
            "better. Offline models, not CLIP."
        ),
        width=560,
        height=340,
        draw=draw,
    )


def main() -> None:
    """Print the tables and draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--scores", default="trustvlm,trustvlm_star,auto,auto_star")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    everything = {}
    for score in options.scores.split(","):
        print(f"\n#### `{score}`, {options.shots} examples a class at first\n")
        print("| set | AURC, no answers | 100 doubtful | 100 random | unanswered: before | after |")
        print("|---|" + "--:|" * 5)
        for name in SETS:
            found = measure(options.root, name, score, options.shots, options.splits)
            everything[score, name] = found
            doubtful, chance = found["doubtful"].mean(0), found["random"].mean(0)
            before, after = found["rest"].mean(0)
            print(
                f"| {name} | {100 * doubtful[0]:.2f} | {100 * doubtful[-1]:.2f} | "
                f"{100 * chance[-1]:.2f} | {100 * before:.2f} | {100 * after:.2f} |",
                flush=True,
            )
    if options.figure:
        figure = drawing(everything, options.shots)
        figure.save(options.figure)


if __name__ == "__main__":
    main()
