"""Images of none of the classes: what the gate stops, at what price, and what warns without shots.

    python benchmarks/ood_gate.py EMBEDDINGS_CLIP [--shots 4] [--draws 3] [--scores auto_star,auto]

EMBEDDINGS_CLIP holds `<set>__train.npz` and `<set>__test.npz` of one CLIP, as `trustvlm bench
arrays` reads them. The images of one set, 40 % of the batch, are out-of-distribution for another.
Printed: the share of them accepted at the threshold that keeps 80 % of the right labels without
the gate, without it and with it, and the share of right labels that the gate stops. Then the same
with other similarities and shares than the gate has, and which of these is best by the other sets,
one left out at a time. Last, how often a batch of some of the classes is warned of without shots.
"""

import argparse
from itertools import combinations, permutations
from pathlib import Path

import numpy as np

from trustvlm import scores
from trustvlm.benchmark import load_arrays
from trustvlm.monitoring.ood import OODGate, looks_mixed
from trustvlm.scores.arrays import unit_rows
from trustvlm.scores.evidence import prototype_similarities
from trustvlm.scores.few_shot import draw_shots
from trustvlm.scores.held_out import compare_held_out

TERMS = ("examples", "text", "nearest")
OUT, KEPT = 0.4, 0.8


def texts_and_scale(test) -> tuple[np.ndarray, float]:
    texts = unit_rows(np.asarray(test.text_embeddings, dtype=float))
    cosines = unit_rows(np.asarray(test.image_embeddings, dtype=float)) @ texts.T
    return texts, float((test.logits * cosines).sum() / (cosines**2).sum())


def similarities(evidence, prediction, gate: OODGate) -> tuple[np.ndarray, np.ndarray]:
    """Return the three terms of the shots, held out, and of the images, `(m, 3)` and `(n, 3)`."""
    cosines = prototype_similarities(evidence) * gate.lengths
    rows = np.arange(len(prediction))
    images = np.column_stack(
        [cosines[rows, prediction], evidence.logits[rows, prediction], np.nanmax(cosines, axis=1)]
    )
    held_out = compare_held_out(evidence)
    counts = np.bincount(evidence.support_labels, minlength=evidence.n_classes)
    # The expected length of a mean says how alike the shots of a class are.
    k, length = max((k, length) for k, length in zip(counts, gate.lengths, strict=True))
    alike = (length**2 - 1 / k) / (1 - 1 / k)
    lengths = np.sqrt(alike + (1 - alike) / np.maximum(np.where(counts > 1, counts - 1, 1), 1))
    table = np.where(held_out.comparison.present, held_out.comparison.similarities * lengths, -9)
    own = np.arange(len(held_out.labels)), held_out.labels
    shots = np.column_stack([table[own], held_out.comparison.logits[own], table.max(axis=1)])
    return shots, images


def measure(train, test, other, shots: int, draw: int, score: str) -> dict:
    rng = np.random.default_rng(draw)
    chosen = draw_shots(train.labels, train.n_classes, shots, draw=draw).indices
    known = train.shots(chosen)
    n = len(test.labels)
    picked = rng.permutation(len(other.labels))[: round(n * OUT / (1 - OUT))]
    texts, scale = texts_and_scale(test)
    embeddings = np.concatenate([test.image_embeddings, other.image_embeddings[picked]])
    evidence = known.with_images(
        logits=np.concatenate(
            [test.logits, scale * unit_rows(other.image_embeddings[picked].astype(float)) @ texts.T]
        ),
        features=np.concatenate([test.features, other.features[picked]]),
        image_embeddings=embeddings,
    )
    result = scores.prepare(score, known)(evidence)
    right = result.prediction[:n] == test.labels
    accepted = result.confidence >= np.quantile(result.confidence[:n][right], 1 - KEPT)
    gate = OODGate.of_shots(evidence)
    judged = gate.judge(prototype_similarities(evidence), evidence.logits, result.prediction)

    def cell(eligible):
        return 100 * np.array([(accepted & eligible)[n:].mean(), (~eligible[:n])[right].mean()])

    found = {"no gate": cell(np.ones(len(accepted), dtype=bool)), "the gate": cell(judged.eligible)}
    of_shots, of_images = similarities(evidence, result.prediction, gate)
    for k in (1, 2, 3):
        for terms in combinations(range(3), k):
            centre, spread = of_shots.mean(axis=0), of_shots.std(axis=0)
            own, new = (
                ((t - centre) / spread)[:, terms].sum(axis=1) for t in (of_shots, of_images)
            )
            for share in (0.02, 0.05, 0.1):
                rank = max(int(share * (len(own) + 1)), 1)
                name = f"{'+'.join(TERMS[t] for t in terms)} {100 * share:.0f} %"
                found[name] = cell(new >= np.sort(own)[rank - 1])
    return found


def warned(tests: dict, batches: int) -> None:
    rng = np.random.default_rng(0)
    print("\nbatches of 2 to all classes without shots, warned of")
    for name, test in tests.items():
        texts, _ = texts_and_scale(test)
        images = unit_rows(np.asarray(test.image_embeddings, dtype=float))
        others = [t for other, t in tests.items() if other != name]
        told = {share: [] for share in (0.0, 0.1, 0.2, 0.4)}
        for _ in range(batches):
            k = min(int(rng.choice([2, 3, 5, 10, 20, 40, 400])), len(texts))
            classes = rng.choice(len(texts), k, replace=False)
            own = rng.permutation(np.flatnonzero(np.isin(test.labels, classes)))
            own = own[: rng.choice([50, 100, 300])]
            foreign = unit_rows(
                np.asarray(others[rng.integers(len(others))].image_embeddings, dtype=float)
            )
            for share, column in told.items():
                more = foreign[rng.choice(len(foreign), round(len(own) * share / (1 - share)))]
                batch = np.concatenate([images[own], more])
                column.append(looks_mixed(100 * batch @ texts[classes].T))
        cells = ", ".join(f"{100 * s:.0f} % out: {100 * np.mean(c):.0f} %" for s, c in told.items())
        print(f"{name:28}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--scores", default="auto_star,auto")
    parser.add_argument("--batches", type=int, default=150)
    options = parser.parse_args()
    sets = {}
    for file in sorted(options.folder.glob("*__train.npz")):
        name = file.stem.removesuffix("__train")
        if "openclip" not in name:  # another model: its vectors cannot be compared
            sets[name] = load_arrays(file), load_arrays(file.with_name(f"{name}__test.npz"))
    for score in options.scores.split(","):
        cells = {}
        for name, other in permutations(sets, 2):
            runs = [
                measure(*sets[name], sets[other][1], options.shots, draw, score)
                for draw in range(options.draws)
            ]
            cells[name, other] = {key: np.mean([r[key] for r in runs], axis=0) for key in runs[0]}
        show(cells, score, options.shots, options.draws)
    warned({name: test for name, (_, test) in sets.items()}, options.batches)


def show(cells: dict, score: str, shots: int, draws: int) -> None:
    print(
        f"\n{score}, {shots} shots, {draws} draws: accepted out-of-distribution / right stopped, %"
    )
    pairs = list(cells)
    print(f"{'':28}" + "".join(f"{a[:7]}+{b[:5]:8}" for a, b in pairs))
    keys = list(cells[pairs[0]])
    for key in keys:
        row = "".join(f"{cells[p][key][0]:6.1f}/{cells[p][key][1]:<7.1f}" for p in pairs)
        print(f"{key:28}{row}")
    for left_out in dict.fromkeys(a for a, _ in pairs):
        rest = [p for p in pairs if p[0] != left_out]
        best = min(keys[2:], key=lambda key: sum(cells[p][key].sum() for p in rest))
        print(f"best without {left_out}, by the sum of both: {best}")


if __name__ == "__main__":
    main()
