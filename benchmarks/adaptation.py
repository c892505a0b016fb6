"""Scores that learn from unlabelled images: in the batch, once from a target, or without shots.

    python benchmarks/adaptation.py FOLDER [FOLDER ...] [--shots 1,2,4,16] [--draws 5]
    python benchmarks/adaptation.py --sizes 10000,30000,100000 --classes 10,1000

The folders hold `<set>__train.npz`, `<set>__test.npz` and, where the images are of another domain
than the shots, `<set>__test_<domain>.npz`, as `trustvlm bench arrays` reads them. The first prints
per set what labels without shots gain, then adaptation against `auto_star`, then adaptation that
is learned once from m images of one half and kept for the other half. The second prints time and
memory of labels without shots, on random images; tables are of n x C float32 numbers.
"""

import argparse
import time
import tracemalloc
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from trustvlm import metrics, scores
from trustvlm.benchmark import ArraySet, load_arrays
from trustvlm.scores.few_shot import draw_shots

TARGETS = (30, 100, None)


def aurc(result: scores.ScoreResult, labels: np.ndarray) -> float:
    return 1000 * metrics.aurc(result.confidence, result.prediction == labels)


def accuracy(result: scores.ScoreResult, labels: np.ndarray) -> float:
    return 100 * (result.prediction == labels).mean()


def excess(result: scores.ScoreResult, labels: np.ndarray) -> float:
    correct = result.prediction == labels
    return aurc(result, labels) - 1000 * metrics.aurc(correct.astype(float), correct)


def of_images(known: scores.Evidence, test: ArraySet) -> scores.Evidence:
    return known.with_images(
        logits=test.logits, features=test.features, image_embeddings=test.image_embeddings
    )


def without_shots(tests: list[ArraySet]) -> None:
    print(f"\n{'labels without shots':38} {'VLM %':>7} {'gain':>6} {'AURC/MSP':>9}")
    ratios = []
    for test in tests:
        evidence = scores.Evidence.of(logits=test.logits, features=test.features)
        msp = scores.apply("msp", evidence)
        corrected = scores.apply("auto_unlabelled_star", evidence)
        ratios.append(
            aurc(scores.apply("auto_unlabelled", evidence), test.labels) / aurc(msp, test.labels)
        )
        before, after = accuracy(msp, test.labels), accuracy(corrected, test.labels)
        print(f"{test.name:38} {before:7.1f} {after - before:+6.1f} {ratios[-1]:9.3f}")
    print(f"mean ratio of AURC to that of MSP: {np.mean(ratios):.3f}")


def with_shots(folders: list[Path], shots: int, draws: int) -> None:
    ratios: dict[bool, dict[str, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    kept: dict[str, list[float]] = defaultdict(list)
    print(f"\n{f'{shots} shots':38} {'AURC':>7} {'adapted/auto_star':>18} {'accuracy':>9}")
    for train in sorted(path for folder in folders for path in folder.glob("*__train.npz")):
        support, stem = load_arrays(train), train.stem.removesuffix("__train")
        if np.bincount(support.labels).max() < shots:
            continue
        tests = [load_arrays(test) for test in sorted(train.parent.glob(f"{stem}__test*.npz"))]
        for draw in range(draws):
            chosen = draw_shots(support.labels, support.n_classes, shots, draw=draw).indices
            known = support.shots(chosen)
            prepared = {n: scores.prepare(n, known) for n in ("auto_star", "auto_adapted_star")}
            for test in tests:
                evidence, y = of_images(known, test), test.labels
                result = {name: score(evidence) for name, score in prepared.items()}
                before, after = (aurc(each, y) for each in result.values())
                gain = accuracy(result["auto_adapted_star"], y) - accuracy(result["auto_star"], y)
                shifted = not test.name.endswith("__test")
                ratios[shifted][test.name].append(after / before)
                if draw == 0:
                    print(f"{test.name:38} {before:7.1f} {after / before:18.3f} {gain:+9.1f}")
                half = np.random.default_rng(draw).permutation(len(y))
                learn, measure = half[: len(y) // 2], half[len(y) // 2 :]
                of_half = evidence.rows(measure)
                for name in ("trustvlm", "auto"):
                    kept[name].append(excess(scores.apply(name, of_half), y[measure]))
                for m in TARGETS:
                    target = {
                        f"target_{name}": getattr(evidence, name)[learn[:m]]
                        for name in ("logits", "features", "image_embeddings")
                        if evidence.has(name)
                    }
                    result_of = scores.apply("auto_adapted", replace(of_half, **target))
                    kept[f"kept, {m or 'half'} images"].append(excess(result_of, y[measure]))
    for shifted, by_set in ratios.items():
        means = {name: np.mean(values) for name, values in by_set.items()}
        if means:
            worst = max(means, key=means.__getitem__)
            print(
                f"{'with' if shifted else 'without'} a shift: {np.mean(list(means.values())):.3f} "
                f"of auto_star's AURC on average, worst {means[worst]:.3f} ({worst})"
            )
    for name, values in kept.items():
        share = np.mean(values) / np.mean(kept["trustvlm"])
        print(f"{name}: {share:.3f} of trustvlm's excess AURC")


def sizes(counts: list[int], classes: list[int], d: int = 768) -> None:
    print(f"{'images':>8} {'classes':>8} {'processor s':>12} {'seconds':>8} {'more MB':>8} tables")
    for n_classes in classes:
        for n in counts:
            rng = np.random.default_rng(0)
            means = rng.normal(size=(n_classes, d)).astype(np.float32)
            truth = rng.integers(n_classes, size=n)
            features = means[truth] + rng.normal(size=(n, d)).astype(np.float32)
            logits = rng.normal(size=(n, n_classes)).astype(np.float32)
            logits[np.arange(n), truth] += 3.0
            tracemalloc.start()
            processor, clock = time.process_time(), time.perf_counter()
            scores.compute("auto_unlabelled", logits=logits, features=features)
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            tables = peak / (n * n_classes * 4e-6)
            print(
                f"{n:8} {n_classes:8} {time.process_time() - processor:12.1f} "
                f"{time.perf_counter() - clock:8.1f} {peak:8.0f} {tables:6.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--shots", default="1,2,4,16")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--sizes", default="")
    parser.add_argument("--classes", default="10,1000")
    options = parser.parse_args()
    if options.sizes:
        sizes(
            [int(n) for n in options.sizes.split(",")],
            [int(c) for c in options.classes.split(",")],
        )
        return
    tests = [load_arrays(t) for f in options.folders for t in sorted(f.glob("*__test*.npz"))]
    without_shots(tests)
    for shots in map(int, options.shots.split(",")):
        with_shots(options.folders, shots, options.draws)


if __name__ == "__main__":
    main()
