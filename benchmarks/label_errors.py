"""Planted label errors, and how many `advise` lists, on ready-made embeddings of real sets.

    python benchmarks/label_errors.py FOLDER [FOLDER ...] [--sets a,b] [--seeds 5]
        [--errors clean,look-alike,uniform] [--cross-validate]

Every FOLDER holds `<set>__train.npz` in the layout of `trustvlm bench arrays`. Up to 16 shots a
class by the paper's draw; 5 or 10 % of their labels are replaced, by any other class (uniform), by
one of the three whose mean feature is nearest to that of the true class (look-alike), by the very
nearest (nearest), half of them like this and half like that (mixed), or by the class that the text
prefers for the image (text). Where cleanlab is installed it gets the same held-out probabilities
and, with `--cross-validate`, those of its usual pipeline, a logistic regression on the features
with five folds. A second run prints the same tables.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from trustvlm.data_quality.label_errors import ShotPosterior, shot_posterior, suspect_labels
from trustvlm.scores.arrays import class_sums, unit_rows
from trustvlm.scores.few_shot import draw_shots

SHARES = {"clean": (0.0,)}  # of wrong labels; of other kinds 5 and 10 %
FIRST = (10, 20, 50, 100)


class Shots:
    """Shots of one set, rightly labelled as far as its authors know."""

    def __init__(self, path: Path) -> None:
        stored = np.load(path, allow_pickle=False)
        self.n_classes = len(stored["class_names"])
        drawn = draw_shots(stored["labels"], self.n_classes, 16).indices
        self.labels = stored["labels"][drawn].astype(np.int64)
        self.features = stored["features"][drawn].astype(np.float64)
        self.logits = stored["logits"][drawn].astype(np.float64)

    def planted(self, kind: str, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return labels of which a share is wrong, and which are."""
        rng = np.random.default_rng(seed)
        given, c = self.labels.copy(), self.n_classes
        wrong = rng.choice(len(given), round(share * len(given)), replace=False)
        true, rows = self.labels[wrong], np.arange(len(wrong))

        def at_random() -> np.ndarray:
            return (true + rng.integers(1, c, len(wrong))) % c

        def among_nearest(most: int) -> np.ndarray:
            means = unit_rows(class_sums(unit_rows(self.features), self.labels, c))
            nearest = np.argsort(-(means @ means.T - 3.0 * np.eye(c)), axis=1)
            return nearest[true, rng.integers(0, most, len(wrong))]

        if kind == "uniform":
            given[wrong] = at_random()
        elif kind == "mixed":
            given[wrong] = np.where(rows % 2, at_random(), among_nearest(3))
        elif kind == "text":
            logits = self.logits[wrong]
            logits[rows, true] = -np.inf
            given[wrong] = logits.argmax(axis=1)
        else:
            given[wrong] = among_nearest(1 if kind == "nearest" else 3)
        return given, np.isin(np.arange(len(given)), wrong)


def average_precision(doubts: np.ndarray, wrong: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(wrong, doubts)) if wrong.any() else np.nan


def counts(listed: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    hits = wrong[listed].sum()
    return {
        "listed": len(listed),
        "precision": hits / len(listed) if len(listed) else np.nan,
        "recall": hits / wrong.sum() if wrong.any() else np.nan,
    }


def advised(posterior: ShotPosterior, wrong: np.ndarray) -> dict[str, float]:
    """What the list and the expected counts say, of the k shots that could be judged."""
    listed = [suspect.shot for suspect in suspect_labels(posterior)]
    rows = np.flatnonzero(np.isin(posterior.kept, listed))
    wrong = wrong[posterior.kept]
    order, expected = posterior.ranking()
    realised = np.cumsum(wrong[order])
    result = counts(rows, wrong)
    result |= {"AP": average_precision(posterior.mislabelled, wrong), "noise": posterior.noise}
    result |= {"look-alike": posterior.look_alike}
    for k in (*FIRST, len(order)):
        if k <= len(order):
            name = "all" if k == len(order) else str(k)
            result[f"expected {name}"], result[f"wrong {name}"] = expected[k - 1], realised[k - 1]
    return result


def by_cleanlab(labels: np.ndarray, p: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_self_confidence_for_each_label

    classes, compact = np.unique(labels, return_inverse=True)
    p = p[:, classes] / p[:, classes].sum(axis=1, keepdims=True)
    issues = find_label_issues(compact, p, n_jobs=1)
    doubts = 1.0 - get_self_confidence_for_each_label(compact, p)
    return counts(np.flatnonzero(issues), wrong) | {"AP": average_precision(doubts, wrong)}


def cross_validated(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    p = cross_val_predict(
        LogisticRegression(max_iter=100), unit_rows(features), labels, method="predict_proba"
    )
    table = np.zeros((len(labels), labels.max() + 1))
    table[:, np.unique(labels)] = p
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--sets", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--errors", default="clean,look-alike,uniform")
    parser.add_argument("--cross-validate", action="store_true")
    options = parser.parse_args()
    paths = sorted(path for root in options.folders for path in root.glob("*__train.npz"))
    print(
        "| set | shots | errors | by | listed | precision | recall | AP | noise | of look-alikes "
        "| expected (realised) among the first 10 | 20 | 50 | 100 | all |"
    )
    print("|---|--:|---|---|" + "--:|" * 11)
    for path in paths:
        name = path.name.removesuffix("__train.npz")
        if options.sets and name not in options.sets.split(","):
            continue
        shots = Shots(path)
        kinds = options.errors.split(",")
        for kind, share in ((k, share) for k in kinds for share in SHARES.get(k, (0.05, 0.1))):
            results = defaultdict(list)
            for seed in range(options.seeds if share else 1):
                given, wrong = shots.planted(kind, share, seed)
                posterior = shot_posterior(
                    shots.features, given, n_classes=shots.n_classes, logits=shots.logits
                )
                results["advise"].append(advised(posterior, wrong))
                if find_spec("cleanlab") is not None:
                    p, kept = np.exp(posterior.log_probability), posterior.kept
                    results["cleanlab, same"].append(by_cleanlab(given[kept], p, wrong[kept]))
                    if options.cross_validate:
                        p = cross_validated(shots.features, given)
                        results["cleanlab, usual"].append(by_cleanlab(given, p, wrong))
            for source, rows in results.items():
                planted = f"{kind} {100 * share:.0f} %" if share else "none"
                print(
                    f"| {name} | {len(shots.labels)} | {planted} | {source} | {line(rows)} |",
                    flush=True,
                )


def line(rows: list[dict[str, float]]) -> str:
    """Means over the seeds; of seeds that list nothing the precision is left out."""

    def mean(name: str, digits: int) -> str:
        values = [row[name] for row in rows if name in row and not np.isnan(row[name])]
        return f"{np.mean(values):.{digits}f}" if values else "-"

    cells = [mean("listed", 1), *(mean(name, 2) for name in ("precision", "recall"))]
    cells += [mean("AP", 3), mean("noise", 3), mean("look-alike", 2)]
    for k in (*FIRST, "all"):
        text = f"{mean(f'expected {k}', 1)} ({mean(f'wrong {k}', 1)})"
        cells.append("-" if text == "- (-)" else text)
    return " | ".join(cells)


if __name__ == "__main__":
    main()
