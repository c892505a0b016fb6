"""Labels from elsewhere, judged by a few examples alone, on ready-made embeddings of real sets.

    python benchmarks/given_labels.py FOLDER [FOLDER ...] [--sets a,b] [--shots 4] [--draws 5]
        [--splits 200] [--risk 0.05]

Every FOLDER holds `<set>__train.npz` and `<set>__test.npz` as `trustvlm bench arrays` takes them.
Labellers of the test images: the set's own zero-shot model (`vlm`); the truth of which 10 % are
replaced by any other class (`uniform`), by the class with the most similar text (`look-alike`), or
by the wrong class that the zero-shot model likes best for the image (`by-text`). No logits are
shown to the score. For each the table has the AUROC of right against wrong; the share of all labels
that a certificate accepts, calibrated on half as many images drawn with replacement; and the share
of these draws after which more than the risk of what is accepted was wrong, which may be 5 %.

Average precision and recall at a precision of one half are of the ranking by how likely each label
is wrong. `cross-validated` needs no examples: it is what `trustvlm verify --cross-validate` does
with the judged images and all their labels, in five folds. Where cleanlab is installed it ranks the
same labels from the same images with probabilities of a logistic regression, in five folds, too, as
is its usual pipeline.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from trustvlm import decisions, scores
from trustvlm.data_quality.duplicates import near_duplicate_threshold, near_duplicates
from trustvlm.pipeline.cross_validate import split_fold
from trustvlm.pipeline.label_errors import fold_of_images
from trustvlm.scores import Evidence, PrototypeBank
from trustvlm.scores.arrays import unit_rows

SCORES = ("auto", "image_similarity", "prototype_margin", "knn")


def labellers(test: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    truth, n_classes = test["labels"], len(test["class_names"])
    n = len(truth)
    wrong = rng.random(n) < 0.1
    given = {
        "vlm": test["logits"].argmax(axis=1),
        "uniform": np.where(wrong, (truth + rng.integers(1, n_classes, n)) % n_classes, truth),
    }
    if "text_embeddings" in test:
        texts = unit_rows(test["text_embeddings"].astype(np.float64))
        alike = (texts @ texts.T - 3.0 * np.eye(n_classes)).argmax(axis=1)
        given["look-alike"] = np.where(wrong, alike[truth], truth)
    others = test["logits"].astype(np.float64)
    others[np.arange(n), truth] = -np.inf
    given["by-text"] = np.where(wrong, others.argmax(axis=1), truth)
    return given


def certified(
    confidence: np.ndarray, right: np.ndarray, risk: float, splits: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the mean share accepted of all, and how often it held too many errors."""
    shares, exceeded, n = [], [], len(right)
    for _ in range(splits):
        own = rng.integers(0, n, n // 2)
        accepted = confidence >= decisions.certify(confidence[own], right[own], risk).threshold
        shares.append(accepted.mean())
        exceeded.append(accepted.any() and (~right[accepted]).mean() > risk)
    return float(np.mean(shares)), float(np.mean(exceeded))


def found_at_half(doubt: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Return the average precision, and the recall at a precision of one half."""
    precision, recall, _ = precision_recall_curve(wrong, doubt)
    return float(average_precision_score(wrong, doubt)), float(recall[precision >= 0.5].max())


def cross_validated_doubt(
    features: np.ndarray, given: np.ndarray, n_classes: int, folds: int = 5
) -> np.ndarray:
    """Return how doubtful each label is to the images of the other folds."""
    threshold = near_duplicate_threshold(features, given, n_classes=n_classes)
    fold = fold_of_images(given, near_duplicates(features, threshold=threshold), folds)
    every = Evidence.of(
        bank=PrototypeBank().fit(features, given, n_classes=n_classes),
        features=features[:0],
        support_features=features,
        support_labels=given,
    )
    doubt = np.zeros(len(given))
    for held_out in np.unique(fold).tolist():
        evidence = split_fold(every, fold, held_out, {"given_labels": given})
        doubt[fold == held_out] = -scores.apply("auto", evidence).confidence
    # A label that no other fold has is the most doubtful of all.
    return np.where(np.isfinite(doubt), doubt, np.inf)


def cleanlab_doubt(features: np.ndarray, given: np.ndarray) -> np.ndarray | None:
    if find_spec("cleanlab") is None:
        return None
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    _, columns = np.unique(given, return_inverse=True)
    rare = np.bincount(columns).min() < 5
    folds = StratifiedKFold(2 if rare else 5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = cross_val_predict(
            LogisticRegression(C=10.0, max_iter=300),
            unit_rows(features.astype(np.float64)) * 10,
            columns,
            cv=folds,
            method="predict_proba",
        )
    return -np.asarray(get_label_quality_scores(columns, p))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--sets", default="")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--risk", type=float, default=0.05)
    arguments = parser.parse_args()
    wanted = set(filter(None, arguments.sets.split(",")))
    print("set | labeller | right | score | AUROC | certified | exceeded | AP | recall at .5")
    print("--- | --- | --- | --- | --- | --- | --- | --- | ---")
    files = [f for folder in arguments.folders for f in sorted(folder.glob("*__test.npz"))]
    for file in files:
        name = file.name.removesuffix("__test.npz")
        if wanted and name not in wanted:
            continue
        test = dict(np.load(file, allow_pickle=False))
        train = dict(np.load(file.with_name(f"{name}__train.npz"), allow_pickle=False))
        rows: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
        for draw in range(arguments.draws):
            rng = np.random.default_rng(draw)
            classes = len(test["class_names"])
            shots = scores.draw_shots(train["labels"], classes, arguments.shots, draw=draw).indices
            for labeller, given in labellers(test, rng).items():
                right = given == test["labels"]
                if right.all():
                    continue
                for score in SCORES:
                    confidence = scores.compute(
                        score,
                        features=test["features"],
                        support_features=train["features"][shots],
                        support_labels=train["labels"][shots],
                        given_labels=given,
                    ).confidence
                    splits = arguments.splits if score == "auto" else 1
                    share, exceeded = certified(confidence, right, arguments.risk, splits, rng)
                    rows[labeller, score].append(
                        [
                            right.mean(),
                            roc_auc_score(right, confidence),
                            share,
                            exceeded if score == "auto" else np.nan,
                            *found_at_half(-confidence, ~right),
                        ]
                    )
                if draw:
                    continue
                doubts = {
                    "cross-validated": cross_validated_doubt(test["features"], given, classes),
                    "cleanlab": cleanlab_doubt(test["features"], given),
                }
                for ranker, doubt in doubts.items():
                    if doubt is None:
                        continue
                    finite = np.nan_to_num(doubt, posinf=1e9)
                    auroc = roc_auc_score(~right, finite)
                    both = found_at_half(finite, ~right)
                    rows[labeller, ranker].append([right.mean(), auroc, np.nan, np.nan, *both])
        for (labeller, score), values in rows.items():
            right, auroc, share, exceeded, ap, recall = np.mean(values, axis=0)
            print(
                f"{name} | {labeller} | {right:.3f} | {score} | {100 * auroc:.1f} | "
                f"{100 * share:.0f} % | {100 * exceeded:.1f} % | {ap:.3f} | {recall:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
