"""Frames of one scene are no independent images: certificates on all of them, and on one a scene.

    python benchmarks/grouped_guarantees.py EMBEDDINGS [--sets a,b] [--draws 1000]

EMBEDDINGS holds `<set>__train.npz` and `<set>__test.npz`. The images of a set, judged with four
examples a class, are the scenes of a population whose risk is known. 200 scenes are drawn, each
with its frames: they have the confidence of the scene with a little noise, and its right or wrong
label, but for one frame in ten, which is as one of another scene. Scenes have 20 frames each, or
the more, the less they are trusted (1 to 39). The risk is half of the share of wrong labels, so
that a threshold is needed. A certificate at 95 % may exceed it in one draw of twenty; the table
says how often those on all frames and those on one a scene did, with 95 % limits: where every scene
counts once, and where every frame does.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renewed_guarantees import Images, Split, judge, limits_of
from trustvlm.decisions import certify

SCENES, FRAMES, NOISE, OTHER = 200, 20, 0.05, 0.1


@dataclass(frozen=True)
class Film:
    """Scenes, by confidence and right or wrong label, and how many frames each has."""

    confidence: np.ndarray
    right: np.ndarray
    length: np.ndarray

    def frames(
        self, scenes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Confidence, right or wrong, and scene of all frames of some scenes."""
        length, n = self.length[scenes], len(self.right)
        of = np.repeat(scenes, length)
        of = np.where(rng.random(len(of)) < OTHER, rng.integers(0, n, len(of)), of)
        noise = NOISE * self.confidence.std() * rng.normal(size=len(of))
        return (
            self.confidence[of] + noise,
            self.right[of],
            np.repeat(np.arange(len(scenes)), length),
        )


@dataclass(frozen=True)
class Population:
    """All frames that there will ever be, the most trusted first, and what accepting them costs."""

    confidence: np.ndarray
    accepted: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]

    @classmethod
    def of(cls, film: Film, rng: np.random.Generator) -> Population:
        """Each scene fifty times."""
        confidence, right, scene = film.frames(np.repeat(np.arange(len(film.right)), 50), rng)
        order = np.argsort(-confidence)
        weights = {"scenes": 1 / np.bincount(scene)[scene], "frames": np.ones(len(scene))}
        return cls(
            confidence[order],
            {what: np.cumsum(weight[order]) for what, weight in weights.items()},
            {what: np.cumsum((weight * ~right)[order]) for what, weight in weights.items()},
        )

    def risks(self, threshold: float) -> dict[str, float]:
        """Share wrong among what is accepted, by scenes and by frames."""
        k = int((self.confidence >= threshold).sum())
        return {what: float(self.errors[what][k - 1] / a[k - 1]) if k else 0.0
                for what, a in self.accepted.items()}  # fmt: skip


def shown(count: int, n: int) -> str:
    """A share and its limits."""
    low, high = limits_of(count, n)
    return f"{100 * count / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--sets", default="")
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    print("| set, risk | frames a scene | certified on | exceeded, by scenes | by frames |")
    print("|---|---|---|--:|--:|")
    for file in sorted(options.root.glob("*__train.npz")):
        name = file.name.removesuffix("__train.npz")
        if options.sets and name not in options.sets.split(","):
            continue
        rng = np.random.default_rng(0)
        split = Split.of(Images.of(options.root, name), rng)
        confidence, right = judge("auto_star", split.shots, split.population)
        risk = round(float((~right).mean()) / 2, 2)
        if risk < 0.03:
            continue  # 200 scenes certify nothing
        rank = np.argsort(np.argsort(confidence)) / len(right)
        lengths = {
            "20": np.full(len(right), FRAMES),
            "the more, the more doubtful": np.round(2 * FRAMES - 1 - 38 * rank).astype(int),
        }
        for what, length in lengths.items():
            film = Film(confidence, right, length)
            population = Population.of(film, rng)
            exceeded = {way: {"scenes": 0, "frames": 0} for way in ("all frames", "one a scene")}
            for _ in range(options.draws):
                own, label, scene = film.frames(rng.integers(0, len(right), SCENES), rng)
                for way, counts in exceeded.items():
                    groups = scene.tolist() if way == "one a scene" else None
                    rule = certify(own, label, risk, groups=groups)
                    for by, wrong in population.risks(rule.threshold).items():
                        counts[by] += wrong > risk
            for way, counts in exceeded.items():
                cells = [shown(count, options.draws) for count in counts.values()]
                print(f"| {name}, {risk:g} | {what} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
