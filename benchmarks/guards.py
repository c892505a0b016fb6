"""What the guards and the advice are worth, on ready-made embeddings: trouble planted in real sets.

    python benchmarks/guards.py EMBEDDINGS [--only mislabels,classes,odd,scope,drift,advice]

EMBEDDINGS holds `<set>__{train,test,test_<domain>}.npz` in the layout of `trustvlm bench arrays`.
Everything is seeded: a second run prints the same tables.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trustvlm.data_quality.label_errors import shot_posterior, suspect_labels
from trustvlm.data_quality.label_next import Trial, coverage_gain, label_next
from trustvlm.data_quality.overlapping_classes import overlapping_classes
from trustvlm.decisions import DriftMonitor, OODThreshold, check_shots
from trustvlm.exceptions import UndefinedMetricWarning
from trustvlm.monitoring.ood import held_out_typicality
from trustvlm.scores import Evidence, ScoreResult, compute
from trustvlm.scores.few_shot import draw_shots

SETS = (
    "flowers102",
    "caltech101",
    "oxford_pets37",
    "cifar10",
    "dtd10",
    "eurosat",
    "imagenette",
    "office_caltech10",
    "pacs",
)


@dataclass(frozen=True)
class Images:
    """Arrays of some images of one set."""

    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    n_classes: int

    def rows(self, index: np.ndarray) -> Images:
        """Return some of them."""
        return Images(self.features[index], self.labels[index], self.logits[index], self.n_classes)

    def as_shots(self, labels: np.ndarray | None = None, n_classes: int | None = None) -> Evidence:
        """Return them as shots, with other labels if any are given."""
        c = n_classes or self.n_classes
        logits = np.zeros((len(self.labels), c))
        logits[:, : self.n_classes] = self.logits
        return Evidence.of(
            logits=np.empty((0, c)),
            support_features=self.features,
            support_labels=self.labels if labels is None else labels,
            support_logits=logits,
        )


def load(root: Path, name: str) -> Images:
    stored = np.load(root / f"{name}.npz", allow_pickle=False)
    return Images(
        stored["features"].astype(np.float64),
        stored["labels"].astype(np.int64),
        stored["logits"].astype(np.float64),
        len(stored["class_names"]),
    )


def shots_of(root: Path, name: str, per_class: int = 16) -> Images:
    train = load(root, f"{name}__train")
    return train.rows(draw_shots(train.labels, train.n_classes, per_class).indices)


def plantings(shots: Images, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Five in a hundred labels replaced by other classes, at random."""
    for seed in range(n):
        rng = np.random.default_rng(seed)
        wrong = rng.choice(len(shots.labels), round(0.05 * len(shots.labels)), replace=False)
        given = shots.labels.copy()
        given[wrong] += rng.integers(1, shots.n_classes, len(wrong))
        yield given % shots.n_classes, wrong


def mislabels(root: Path) -> None:
    print("\n### 5 % of the shots mislabelled at random, 16 shots, ten plantings\n")
    print(
        "| set | shots | precision (lowest) | recall (lowest) | listed | noise | listed if clean |"
    )
    print("|---|" + "--:|" * 6)
    for name in SETS:
        shots = shots_of(root, name)
        rows = []
        for given, wrong in plantings(shots, 10):
            found = shot_posterior(
                shots.features, given, n_classes=shots.n_classes, logits=shots.logits
            )
            listed = [suspect.shot for suspect in suspect_labels(found)]
            hits = len(set(listed) & set(wrong.tolist()))
            rows.append((hits / max(len(listed), 1), hits / len(wrong), len(listed), found.noise))
        precision, recall, listed_n, noise = np.array(rows).T
        clean = shot_posterior(
            shots.features, shots.labels, n_classes=shots.n_classes, logits=shots.logits
        )
        print(
            f"| {name} | {len(shots.labels)} | {precision.mean():.2f} ({precision.min():.2f}) | "
            f"{recall.mean():.2f} ({recall.min():.2f}) | {listed_n.mean():.1f} | "
            f"{100 * noise.mean():.1f} % | {len(suspect_labels(clean))} |"
        )


def classes(root: Path) -> None:
    print("\n### One class of 16 shots split at random into two names, 20 times\n")
    print("| set | found | other pairs called duplicates | pairs below 0.9 if clean | duplicates |")
    print("|---|" + "--:|" * 4)
    for name in SETS:
        shots = shots_of(root, name)
        c = shots.n_classes
        found = false = 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            own = rng.permutation(np.flatnonzero(shots.labels == rng.integers(c)))
            given, pair = shots.labels.copy(), (int(shots.labels[own[0]]), c)
            given[own[: len(own) // 2]] = c
            posterior = shot_posterior(shots.features, given, n_classes=c + 1)
            listed = overlapping_classes(shots.features, given, posterior, n_classes=c + 1)
            duplicates = {(p.one, p.other) for p in listed if p.duplicate}
            found += pair in duplicates
            false += len(duplicates - {pair})
        clean = check_shots(shots.features, shots.labels, n_classes=c).overlapping_classes
        print(
            f"| {name} | {found}/20 | {false} | {len(clean)} | {sum(p.duplicate for p in clean)} |"
        )


def foreign(root: Path, name: str, rng: np.random.Generator, n: int) -> np.ndarray:
    """Features of n images of other sets."""
    others = [other for other in SETS if other != name]
    pools = {other: load(root, f"{other}__test").features for other in others}
    drawn = rng.choice(others, n)
    return np.stack([pools[other][rng.integers(len(pools[other]))] for other in drawn])


def odd(root: Path) -> None:
    print("\n### 5 % of the shots replaced by images of other sets, 16 shots, five plantings\n")
    print("| set | listed as odd or as mislabelled | of all listed, planted | odd if clean |")
    print("|---|" + "--:|" * 3)
    for name in SETS:
        shots = shots_of(root, name)
        rows = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            where = rng.choice(len(shots.labels), round(0.05 * len(shots.labels)), replace=False)
            features = shots.features.copy()
            features[where] = foreign(root, name, rng, len(where))
            health = check_shots(features, shots.labels, n_classes=shots.n_classes)
            listed = {o.shot for o in health.odd} | {s.shot for s in health.suspects}
            hits = len(listed & set(where.tolist()))
            rows.append((hits / len(where), hits / max(len(listed), 1)))
        clean = check_shots(shots.features, shots.labels, n_classes=shots.n_classes)
        recall, precision = np.array(rows).mean(axis=0)
        print(f"| {name} | {recall:.2f} | {precision:.2f} | {len(clean.odd)} |")


def scope(root: Path) -> None:
    print("\n### Images of no class: test images of the eight other sets, 16 shots, at 1 %\n")
    print("| set | stated at most | flagged of its own | of other sets | AUROC |")
    print("|---|" + "--:|" * 4)
    tests = {name: load(root, f"{name}__test").features for name in SETS}
    for name in SETS:
        shots = shots_of(root, name).as_shots()
        found = OODThreshold.of(held_out_typicality(shots))
        typical = {
            other: np.nanmax(shots.bank.similarities(features), axis=1)
            for other, features in tests.items()
        }
        own = typical.pop(name)
        others = np.concatenate(list(typical.values()))
        below = (others[None, :] < own[:, None]).mean()
        print(
            f"| {name} | {100 * found.false_flags:.1f} % | {100 * found.is_ood(own).mean():.1f} % "
            f"| {100 * found.is_ood(others).mean():.1f} % | {100 * below:.1f} |"
        )


def drift(root: Path) -> None:
    print("\n### From PACS photographs to other domains, at one false alarm in 10,000, 50 orders\n")
    print("| calibrated on | incoming | alarms | images until the alarm, median (most) |")
    print("|---|---|--:|--:|")
    shots = shots_of(root, "pacs").as_shots()
    photos = streams(root, "pacs__test", shots)
    held_out = {
        "confidence": held_out_confidence(shots),
        "typicality": held_out_typicality(shots),
    }
    domains = {
        d: streams(root, f"pacs__test_{d}", shots) for d in ("sketch", "cartoon", "art_painting")
    }
    for source in ("84 photographs", "112 shots, held out"):
        for domain in ("photo", *domains):
            after = []
            for seed in range(50):
                order = np.random.default_rng(seed).permutation(168)
                if source.startswith("84"):
                    monitor = DriftMonitor.start(part(photos, order[:84]), seed=seed)
                else:
                    low = ("confidence", "typicality")
                    monitor = DriftMonitor.start(held_out, low_side=low, seed=seed)
                rest = order[84:] if source.startswith("84") else order
                incoming = part(photos, rest) if domain == "photo" else domains[domain]
                ends = [s.drifted_after for s in monitor.after(incoming).streams.values()]
                after += [min(e for e in ends if e is not None)] if any(ends) else []
            text = f"{statistics.median(after):.0f} ({max(after)})" if after else "–"
            print(f"| {source} | {domain} | {len(after)}/50 | {text} |")


def streams(root: Path, name: str, shots: Evidence) -> dict[str, np.ndarray]:
    images = load(root, name)
    result = compute("trustvlm", logits=images.logits, features=images.features, bank=shots.bank)
    typical = np.nanmax(shots.bank.similarities(images.features), axis=1)
    return {"confidence": result.confidence, "typicality": typical}


def held_out_confidence(shots: Evidence) -> np.ndarray:
    from trustvlm.pipeline.cross_validate import cross_validate

    return cross_validate(shots, ["trustvlm"], folds=8).results["trustvlm"].confidence


def part(values: dict[str, np.ndarray], index: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[index] for name, array in values.items()}


def advice(root: Path) -> None:
    print("\n### Examples of the advised classes against those of random ones\n")
    print(
        "Shots: 1 to 7 a class at random; advice from one half of the test images, measured on\n"
        "the other; up to 8 examples of each of three classes from the training images. Four\n"
        "draws.\n"
        "AURC x1000; negative is better. 'random' is the mean of 30 choices of three classes.\n"
    )
    print(
        "| score | set | AURC before | advised | random | fewest shots | coverage at 5 %: before "
        "| advised | random | gain expected (interval) | inside |"
    )
    print("|---|---|" + "--:|" * 9)
    # auto learns anew in every trial, which takes minutes a draw on the three large sets.
    for score, names in (("trustvlm", SETS), ("trustvlm_star", SETS), ("auto_star", SETS[3:])):
        better = []
        for name in names:
            rows = np.array([followed(root, name, score, seed) for seed in range(4)])
            m = rows.mean(axis=0)
            better.append(m[1] < m[2])
            print(
                f"| {score} | {name} | {m[0]:.1f} | {m[1]:+.1f} | {m[2]:+.1f} | {m[3]:+.1f} | "
                f"{100 * m[4]:.1f} % | {100 * m[5]:+.1f} | {100 * m[6]:+.1f} | "
                f"{100 * m[7]:+.1f} ({100 * m[8]:+.1f} to {100 * m[9]:+.1f}) | "
                f"{((rows[:, 8] <= rows[:, 5]) & (rows[:, 5] <= rows[:, 9])).sum()} of 4 |"
            )
        print(f"| {score} | better than random | | {sum(better)} of {len(better)} | | | | | | | |")


def followed(root: Path, name: str, score: str, seed: int) -> list[float]:
    """Follow the advice once; see the columns that `advice` prints."""
    rng = np.random.default_rng(seed)
    train, test = load(root, f"{name}__train"), load(root, f"{name}__test")
    c = train.n_classes
    by_class = [rng.permutation(np.flatnonzero(train.labels == k)) for k in range(c)]
    counts = rng.integers(1, 8, size=c)
    shots = np.concatenate([own[:n] for own, n in zip(by_class, counts, strict=True)])
    pool = [own[n : n + 8] for own, n in zip(by_class, counts, strict=True)]
    half = rng.permutation(len(test.labels)) % 2 == 0
    known, unseen = test.rows(half), test.rows(~half)

    def answer(images: Images, more: Images) -> ScoreResult:
        return compute(
            score,
            logits=images.logits,
            features=images.features,
            support_features=np.concatenate([train.features[shots], more.features]),
            support_labels=np.concatenate([train.labels[shots], more.labels]),
            support_logits=np.concatenate([train.logits[shots], more.logits]),
        )

    def judge(joined: np.ndarray, judged: np.ndarray) -> ScoreResult:
        return answer(known.rows(judged), known.rows(joined))

    def after(chosen: list[int]) -> tuple[np.ndarray, np.ndarray]:
        new = np.concatenate([pool[k] for k in chosen]) if chosen else np.empty(0, dtype=int)
        result = answer(unseen, train.rows(new))
        return result.confidence, result.prediction == unseen.labels

    found = label_next(judge, known.labels, n_classes=c, seed=seed)
    before, everyone = after([]), np.arange(len(unseen.labels))

    def gains(chosen: list[int]) -> tuple[float, float]:
        trial = Trial(everyone, before, after(chosen))
        coverage = coverage_gain([trial], risk=0.05, n_resamples=1)
        return 1000 * (aurc(trial.after) - aurc(trial.before)), coverage.gain

    advised = gains([advised.label for advised in found.classes[:3]])
    fewest = gains(np.argsort(counts, kind="stable")[:3].tolist())
    random = [gains(rng.permutation(c)[:3].tolist()) for _ in range(30)]
    at_first = coverage_gain([Trial(everyone, before, before)], risk=0.05, n_resamples=1).before
    t = found.together
    expected = [t.gain, t.low, t.high] if t else [0.0, 0.0, 0.0]
    return [
        1000 * aurc(before),
        advised[0],
        statistics.fmean(g for g, _ in random),
        fewest[0],
        at_first,
        advised[1],
        statistics.fmean(g for _, g in random),
        *expected,
    ]


def aurc(answer: tuple[np.ndarray, np.ndarray]) -> float:
    from trustvlm import metrics

    return metrics.aurc(*answer)


PARTS = {
    "mislabels": mislabels,
    "classes": classes,
    "odd": odd,
    "scope": scope,
    "drift": drift,
    "advice": advice,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    warnings.simplefilter("ignore", UndefinedMetricWarning)
    for part_name in options.only.split(","):
        PARTS[part_name](options.embeddings)


if __name__ == "__main__":
    main()
