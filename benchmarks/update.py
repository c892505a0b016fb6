"""What following the review page does to a model; the table in benchmarks/RESULTS.md.

    python benchmarks/update.py DATA [--draws 5] [--answers 30] [--set oxford_pets37]

The first fifteen classes, four examples each. The other training images come in, and the most
doubtful ones by the model's own confidence are answered rightly, as with the keys of the review
page. Then, each by the share of right labels on the test images, which nothing has seen:

* before;
* `fit` on examples and answers without the model's settings, as the page once printed it: with the
  score that is the default today, and with `trustvlm`, the default then;
* `update`, with what its own comparison says, and how long it takes.

Half of what is left of the training images calibrates the model before, drawn at random, and, as
the model holds them, the updated one again. Whether certificates then hold is another question:
`renewed_guarantees.py`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

from trustvlm import TrustVLM
from trustvlm.embeddings import EmbeddingStore
from trustvlm.exceptions import TrustVLMWarning
from trustvlm.scores.few_shot import draw_shots

N_CLASSES, SHOTS, RISK = 15, 4, 0.2
SCORES = ("auto_star", "trustvlm_star")


def listed(folder: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Paths of the images of some classes, and their classes."""
    pairs = [(path, name) for name in classes for path in sorted((folder / name).iterdir())]
    paths, labels = zip(*pairs, strict=True)
    return np.array(paths), np.array(labels)


def right(model: TrustVLM, paths: np.ndarray, labels: np.ndarray) -> float:
    """Share of right labels, in percent."""
    folders = dict(zip(model.classes_.labels, model.classes_.folders, strict=True))
    verdicts = model.predict(list(paths))
    return 100 * float(np.mean([folders[v.label] == c for v, c in zip(verdicts, labels)]))  # noqa: B905


def one(
    root: Path, score: str, draw: int, n_answers: int, store: EmbeddingStore
) -> dict[str, float | str]:
    """All figures of one draw."""
    lines = (root / "classes.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    names = dict(line.split("\t") for line in lines[:N_CLASSES])
    classes = list(names)
    paths, labels = listed(root / "train", classes)
    test = listed(root / "test", classes)
    codes = np.array([classes.index(label) for label in labels])
    shots = draw_shots(codes, N_CLASSES, SHOTS, draw=draw).indices
    others = np.random.default_rng(draw).permutation(np.setdiff1d(np.arange(len(paths)), shots))
    checked, incoming = np.split(others, [len(others) // 2])

    def pairs(*rows: np.ndarray) -> tuple[list[Path], list[str]]:
        at = np.concatenate(rows)
        return list(paths[at]), list(labels[at])

    def fitted(score: str, *rows: np.ndarray) -> TrustVLM:
        offline = {"vlm": "offline", "vision": "offline", "store": store}
        return TrustVLM(**offline, classes=names, score=score).fit(pairs(*rows))

    model = fitted(score, shots).calibrate(pairs(checked), risk=RISK)
    confidence = [verdict.confidence for verdict in model.predict(list(paths[incoming]))]
    answered = incoming[np.argsort(confidence, kind="stable")[:n_answers]]
    began = time.perf_counter()
    updated, report = model.update(pairs(answered), even_if_worse=True)
    seconds = time.perf_counter() - began
    verdicts = updated.evaluate(test, scores=[score])
    accepted = np.array(verdicts.verdicts.column("decision")) == "accept"
    wrong = float((~verdicts.correct()[accepted]).mean()) if accepted.any() else 0.0
    held_out, calibrating = report.comparisons
    return {
        "before": right(model, *test),
        "printed": right(fitted("auto_star", shots, answered), *test),
        "then": right(fitted("trustvlm", shots, answered), *test),
        "update": right(updated, *test),
        "answers": f"{100 * held_out.accuracy.b:.0f} to {100 * held_out.accuracy.a:.0f}",
        "verdict": held_out.verdict,
        "calibrating": f"{100 * calibrating.accuracy.b:.0f} to {100 * calibrating.accuracy.a:.0f}",
        "accepted": 100 * float(accepted.mean()),
        "wrong": 100 * wrong,
        "seconds": seconds,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", default="oxford_pets37")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--answers", type=int, default=30)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", TrustVLMWarning)
    store = EmbeddingStore()
    columns = (
        "score", "draw", "before", "`fit` as printed", "with `trustvlm`", "`update`",
        "answers held out, %", "calibration images, %", "accepted", "of these wrong", "seconds",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("|---|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|")
    for score in SCORES:
        rows = []
        for draw in range(chosen.draws):
            row = one(chosen.data / chosen.set, score, draw, chosen.answers, store)
            rows.append(row)
            shown = [f"{row[k]:.1f}" for k in ("before", "printed", "then", "update")]
            shown += [f"{row['answers']}, {row['verdict']}", str(row["calibrating"])]
            shown += [f"{row[k]:.1f}" for k in ("accepted", "wrong", "seconds")]
            print(f"| {score} | {draw} | {' | '.join(shown)} |", flush=True)
        means = {
            key: np.mean([float(row[key]) for row in rows])
            for key in ("before", "printed", "then", "update", "accepted", "wrong", "seconds")
        }
        shown = [f"{means[k]:.1f}" for k in ("before", "printed", "then", "update")]
        shown += ["", "", *(f"{means[k]:.1f}" for k in ("accepted", "wrong", "seconds"))]
        print(f"| {score} | mean | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
