"""Do certificates hold, at first and when `update` renews them? Judged against a true risk.

    python benchmarks/renewed_guarantees.py EMBEDDINGS [EMBEDDINGS ...] [--sets a,b]
        [--score auto_star] [--risks 0.05,0.1,0.2] [--models 20] [--draws 60]
        [--every 15] [--json FILE]
    python benchmarks/renewed_guarantees.py RESULTS.json [RESULTS.json ...] --figure FILE.svg

EMBEDDINGS holds `<set>__train.npz` and `<set>__test.npz`. The images of both are split at random:
one part has the examples (four a class) and the images that come in, the other is the population.
200 calibration images are drawn from that *with* replacement, so that its own share of wrong labels
among the accepted is the true risk: no test images add chance of their own. For each of `--models`
splits as many calibrations as `--draws` are drawn. A certificate at 95 % may exceed the risk in one
draw of twenty; the table has how often it did, with 95 % limits (Clopper-Pearson), and `breaks`
where even the lower one is above 5 %.

What can depend on the calibration images is counted apart; where models have to be fitted for every
calibration, of one in `--every` of them:

* `first`; and after one, two and three updates (30 of 100 that come in become examples each time),
  renewed on the same images, where the most doubtful by the model's own confidence are answered;
* `first threshold`, kept after an update; `guarded`, where the first model stays if significantly
  fewer calibration images have the right label;
* `largest of four`: of these four certificates, all on the same labels, the one that accepts most;
* `reviewed`: 30 random ones of those below the certified threshold are answered, which the
  calibration has a part in; `worst classes`: those of the classes in which most calibration images
  were wrong, as `advise` says;
* `bursts`: half of what comes in are further shots of the scenes of calibration images (as near as
  `--noise` makes them), and the rest of the population is the truth; `bursts, left out`, where
  corrections that are near-duplicates of calibration images become no examples, as in `update`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from trustvlm.data_quality.duplicates import near_duplicate_threshold, nearer_than_usual
from trustvlm.plots.figure import SERIES, Figure
from trustvlm.risk_control.certify import certify
from trustvlm.scores import compute

SHOTS, CALIBRATION, COMING, ANSWERS, UPDATES = 4, 200, 100, 30, 3
# So many of the first classes that there are so many images: fitting takes most of the time.
CLASSES, IMAGES = 15, 900
KINDS = (
    "first",
    "1 update",
    "2 updates",
    "3 updates",
    "first threshold",
    "guarded",
    "largest of four",
    "reviewed",
    "worst classes",
    "first, rest",
    "1 update, rest",
    "bursts",
    "bursts, left out",
)


@dataclass(frozen=True)
class Images:
    """Rows of arrays; `logits` are the VLM's."""

    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> Images:
        """Some of them."""
        return Images(self.logits[rows], self.features[rows], self.labels[rows])

    def and_also(self, more: Images) -> Images:
        """These and others."""
        return Images(
            *(
                np.concatenate([getattr(self, name), getattr(more, name)])
                for name in ("logits", "features", "labels")
            )
        )

    @classmethod
    def of(cls, root: Path, name: str) -> Images:
        """Train and test images of a set, of its first classes, and their logits for these."""
        parts = [np.load(root / f"{name}__{part}.npz") for part in ("train", "test")]
        keys = ("logits", "features", "labels")
        arrays = [np.concatenate([part[key] for part in parts]) for key in keys]
        up_to = np.cumsum(np.bincount(arrays[2]))
        classes = min(len(up_to), max(CLASSES, 1 + int(np.searchsorted(up_to, IMAGES))))
        rows = arrays[2] < classes
        logits, features, labels = (array[rows] for array in arrays)
        return cls(logits[:, :classes].astype(np.float64), features, labels.astype(np.int64))


def judge(score: str, shots: Images, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, and whether the label is right."""
    result = compute(
        score,
        logits=images.logits,
        features=images.features,
        support_features=shots.features,
        support_labels=shots.labels,
        support_logits=shots.logits,
    )
    return result.confidence, result.prediction == images.labels


def most_doubtful(score: str, shots: Images, coming: Images) -> np.ndarray:
    """Which of the images that come in are answered."""
    return np.argsort(judge(score, shots, coming)[0], kind="stable")[:ANSWERS]


@dataclass(frozen=True)
class Split:
    """Examples, what comes in before each update, and the population."""

    shots: Images
    coming: list[Images]
    population: Images

    @classmethod
    def of(cls, images: Images, rng: np.random.Generator) -> Split:
        """Split the images of a set at random."""
        order = rng.permutation(len(images.labels))
        labels = images.labels[order]
        of_class = [order[labels == c][:SHOTS] for c in np.unique(labels)]
        shots = np.concatenate(of_class)
        others = rng.permutation(np.setdiff1d(order, shots))
        # Small sets leave half of the others for the population at least.
        each = min(COMING, len(others) // 2 // UPDATES)
        coming = [images.take(others[i * each : (i + 1) * each]) for i in range(UPDATES)]
        return cls(images.take(shots), coming, images.take(others[UPDATES * each :]))


class Truth:
    """Certificates of one model on draws from a population, judged by it."""

    def __init__(self, confidence: np.ndarray, right: np.ndarray) -> None:
        self.confidence, self.right = confidence, right

    def certified(self, drawn: np.ndarray, risk: float) -> float:
        """The threshold from these images; NaN for none."""
        return certify(self.confidence[drawn], self.right[drawn], risk).threshold

    def risk(self, threshold: float, among: np.ndarray | None = None) -> tuple[float, float]:
        """Share of the population that is accepted, and of that what is wrong."""
        confidence, right = self.confidence, self.right
        if among is not None:
            confidence, right = confidence[among], right[among]
        accepted = confidence >= threshold
        return float(accepted.mean()), float((~right[accepted]).mean()) if accepted.any() else 0.0


def fewer_right(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether significantly fewer labels are right, by a paired comparison."""
    change = after.astype(float) - before
    return bool(change.mean() < -1.96 * change.std() / np.sqrt(len(change)) and change.any())


def burst_of(
    population: Images, drawn: np.ndarray, noise: float, rng: np.random.Generator
) -> Images:
    """Further shots of scenes: the same labels, features and logits with a little noise."""
    chosen = population.take(drawn)
    features = chosen.features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    d = features.shape[1]
    features = features + noise * lengths * rng.normal(size=features.shape) / np.sqrt(d)
    spread = noise * population.logits.std(axis=1).mean()
    logits = chosen.logits + spread * rng.normal(size=chosen.logits.shape)
    return Images(logits, features.astype(np.float32), chosen.labels)


def counted(
    score: str,
    split: Split,
    risks: list[float],
    draws: int,
    every: int,
    noise: float,
    rng: np.random.Generator,
) -> Iterator[tuple[str, float, float, float]]:
    """Yield kind, risk, share accepted and share wrong for each certificate."""
    population, shots = split.population, [split.shots]
    for coming in split.coming:
        chosen = coming.take(most_doubtful(score, shots[-1], coming))
        shots.append(shots[-1].and_also(chosen))
    models = [Truth(*judge(score, own, population)) for own in shots]
    first, updated = models[:2]
    coming = split.coming[0]
    coming_confidence = judge(score, split.shots, coming)[0]
    for draw in range(draws):
        drawn = rng.integers(0, len(population.labels), CALIBRATION)
        rest = np.setdiff1d(np.arange(len(population.labels)), drawn)
        for risk in risks:
            thresholds = [model.certified(drawn, risk) for model in models]
            outcomes = [m.risk(t) for m, t in zip(models, thresholds, strict=True)]
            yield from ((k, risk, *o) for k, o in zip(KINDS, outcomes, strict=False))
            yield "first threshold", risk, *updated.risk(thresholds[0])
            worse = fewer_right(first.right[drawn], updated.right[drawn])
            yield "guarded", risk, *outcomes[0 if worse else 1]
            accepted = [
                (m.confidence[drawn] >= t).sum() for m, t in zip(models, thresholds, strict=True)
            ]
            yield "largest of four", risk, *outcomes[int(np.argmax(accepted))]
            yield "first, rest", risk, *first.risk(thresholds[0], rest)
            yield "1 update, rest", risk, *updated.risk(thresholds[1], rest)
        # What follows learns anew for every calibration, and is drawn less often.
        if draw % every:
            continue
        for risk in risks:
            queue = np.flatnonzero(~(coming_confidence >= first.certified(drawn, risk)))
            chosen = coming.take(rng.permutation(queue)[:ANSWERS])
            model = Truth(*judge(score, split.shots.and_also(chosen), population))
            yield "reviewed", risk, *model.risk(model.certified(drawn, risk))
        wrong = np.bincount(
            population.labels[drawn][~first.right[drawn]], minlength=coming.logits.shape[1]
        )
        by_class = np.argsort(-wrong[coming.labels] + 1e-6 * rng.random(len(coming.labels)))
        worst = Truth(
            *judge(score, split.shots.and_also(coming.take(by_class[:ANSWERS])), population)
        )
        half = len(coming.labels) // 2
        burst = burst_of(population, rng.permutation(np.unique(drawn))[:half], noise, rng)
        mixed = burst.and_also(coming.take(np.arange(half)))
        chosen = mixed.take(most_doubtful(score, split.shots, mixed))
        bursts = Truth(*judge(score, split.shots.and_also(chosen), population))
        # Copies of one image are calibrated on once.
        own = population.take(np.unique(drawn))
        n_classes = coming.logits.shape[1]
        limit = near_duplicate_threshold(own.features, own.labels, n_classes=n_classes)
        kept = ~nearer_than_usual(chosen.features, own.features, threshold=limit)
        left = Truth(
            *judge(score, split.shots.and_also(chosen.take(np.flatnonzero(kept))), population)
        )
        for risk in risks:
            yield "worst classes", risk, *worst.risk(worst.certified(drawn, risk))
            yield "bursts", risk, *bursts.risk(bursts.certified(drawn, risk), rest)
            yield "bursts, left out", risk, *left.risk(left.certified(drawn, risk), rest)


# What the figure shows, and how it calls it.
SHOWN = {
    "first": "at first",
    "1 update": "renewed after one update",
    "3 updates": "renewed after three",
    "reviewed": "answers below the threshold",
    "worst classes": "answers of the worst classes",
    "largest of four": "the largest of four looks",
    "1 update, rest": "after one update, on other images",
    "bursts": "answers on scenes of the calibration",
    "bursts, left out": "these left out, as update does",
}


def drawing(rows: list[dict[str, Any]]) -> Figure:
    """How often each kind exceeded its risk: every set and risk at which something is certified."""
    points = {
        kind: [row for row in rows if row["kind"] == kind and row["accepted"] >= 0.05]
        for kind in SHOWN
    }

    def draw(body: Any) -> None:
        axes = body.subplots()
        for i, kind in enumerate(SHOWN):
            own = sorted(points[kind], key=lambda row: (row["set"], row["risk"]))
            for j, row in enumerate(own):
                at = i + 0.6 * ((j + 0.5) / len(own) - 0.5)
                low, high, n = 100 * row["low"], 100 * row["high"], row["n"]
                axes.plot([low, high], [at, at], color=SERIES[0], linewidth=0.8)
                axes.plot(100 * row["exceeded"] / n, at, "o", color=SERIES[0], markersize=3)
        axes.axvline(5, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_yticks(range(len(SHOWN)), list(SHOWN.values()))
        axes.set_ylim(len(SHOWN) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("% of draws in which the risk is exceeded; 5 are allowed")

    return Figure(
        name="renewed-guarantees",
        title="How often certificates are broken",
        caption=(
            "Share of calibrations whose certificate exceeds its risk, with 95 % limits; a mark "
            "per set and risk. 200 calibration images, 95 % confidence, judged by the population."
        ),
        width=640,
        height=420,
        draw=draw,
    )


def limits_of(exceeded: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson limits at 95 %."""
    interval = stats.binomtest(exceeded, n).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--sets", default="")
    parser.add_argument("--score", default="auto_star")
    parser.add_argument("--risks", default="0.05,0.1,0.2")
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--noise", type=float, default=0.15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.figure:
        stored = [row for file in options.sources for row in json.loads(file.read_text())]
        drawing(stored).save(options.figure)
        return
    wanted = set(filter(None, options.sets.split(",")))
    risks = [float(risk) for risk in options.risks.split(",")]
    rows = []
    print("| set | kind | risk | certificates | accepted | wrong | exceeded | 95 % limits | |")
    print("|---|---|--:|--:|--:|--:|--:|--:|---|")
    for file in [f for root in options.sources for f in sorted(root.glob("*__train.npz"))]:
        name = file.name.removesuffix("__train.npz")
        if wanted and name not in wanted:
            continue
        images = Images.of(file.parent, name)
        values: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
        for seed in range(options.models):
            rng = np.random.default_rng(seed)
            split = Split.of(images, rng)
            for kind, risk, share, wrong in counted(
                options.score, split, risks, options.draws, options.every, options.noise, rng
            ):
                values[kind, risk].append((share, wrong))
        for kind in KINDS:
            for risk in risks:
                if (kind, risk) not in values:
                    continue
                share, wrong = np.array(values[kind, risk]).T
                exceeded = int((wrong > risk * (1 + 1e-9)).sum())
                low, high = limits_of(exceeded, len(wrong))
                row = {
                    "set": name,
                    "score": options.score,
                    "kind": kind,
                    "risk": risk,
                    "n": len(wrong),
                    "accepted": float(share.mean()),
                    "wrong": float(wrong[share > 0].mean()) if (share > 0).any() else 0.0,
                    "exceeded": exceeded,
                    "low": low,
                    "high": high,
                }
                rows.append(row)
                print(
                    f"| {name} | {kind} | {risk:g} | {len(wrong)} | {100 * row['accepted']:.1f} % "
                    f"| {100 * row['wrong']:.2f} % | {100 * exceeded / len(wrong):.1f} % "
                    f"| {100 * low:.1f} to {100 * high:.1f} % | {'breaks' if low > 0.05 else ''} |",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
