"""What docs/results.md shows: every score on ready-made embeddings, measured once and kept.

A cell is one set with one number of shots, a JSON file named by all that can change it: the arrays,
the code of the scores and metrics, this file. Same cells, same numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trustvlm
from trustvlm import metrics
from trustvlm.benchmark.dataset import ArraySet, EncodedDataset, load_arrays
from trustvlm.benchmark.results import cell_file, write_cell
from trustvlm.benchmark.run import Measurement, Workers, measure_draw
from trustvlm.benchmark.statistics import LEVEL, Bootstrap, resample, spread
from trustvlm.decisions import certify
from trustvlm.exceptions import FewSamplesWarning, TrustVLMWarning
from trustvlm.metrics import PairedDifference
from trustvlm.metrics.intervals import clopper_pearson, metric_interval
from trustvlm.monitoring.ood import OODGate
from trustvlm.pipeline.predict import explain
from trustvlm.scores import Evidence, get, names, prepare
from trustvlm.scores.arrays import zero_shot_logits
from trustvlm.scores.compute import score_together
from trustvlm.serialization import nan_to_null

SHOTS, DRAWS, RESAMPLES = (1, 4, 16), 5, 1000
METRICS = ("accuracy", "auroc", "aurc", "eaurc", "fpr95")
_PUBLISHED = ("msp", "trustvlm", "auto", "knn", "trine", "icpe", "trustvlm_star", "auto_star",
              "gda", "tip_adapter", "auto_adapted_star", "conf_ot", "lata", "stata")  # fmt: skip
# What teams choose among: these are certified, and drawn.
PRACTICAL = ("msp", "trustvlm", "auto", "auto_star")
RISKS, SIZES, SPLITS = (0.02, 0.05, 0.1), (100, 300, 1000), 100
# Before that a curve is of few images, and its band of all heights.
COVERAGE = np.arange(5, 101) / 100
# Images of one set among those of another: both through one CLIP, whose text embeddings of the
# first set's classes give the logits.
OUTSIDERS = {"dtd": "caltech61", "caltech61": "dtd", "sun397": "dtd"}
OUTSIDE, KEPT, GATED = 0.4, 0.8, "auto_star, gate"
_CODE = ("scores", "metrics", "risk_control", "monitoring", "pipeline")


def published() -> list[str]:
    """The scores of the tables that exist: those that keep the VLM's label first."""
    variants = {name: [f"{name}_log_odds"] for name in ("gda", "tip_adapter")}
    wanted = [one for name in _PUBLISHED for one in (name, *variants.get(name, ()))]
    return sorted((n for n in wanted if n in names()), key=lambda n: get(n).corrects)


@dataclass(frozen=True)
class Cell:
    """One set with one number of shots a class.

    Attributes
    ----------
    train, tests
        Files of arrays.
    shots, draws
        A class with fewer images gives all it has; where all classes do, one draw is all there is.
    outside
        Arrays whose images are of none of the classes, or None.
    practical
        Whether thresholds are certified and curves kept: what teams ask of the real models.
    scores
        Names.
    """

    train: Path
    tests: tuple[Path, ...]
    shots: int
    draws: int
    outside: Path | None
    practical: bool
    scores: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the set."""
        return self.train.stem.removesuffix("__train")

    def file(self, folder: Path) -> Path:
        """Where its numbers are kept."""
        files = [self.train, *self.tests, *([self.outside] if self.outside else [])]
        what = {"arrays": [_digest(file) for file in files], "code": _code(),
                "shots": self.shots, "draws": self.draws, "practical": self.practical,
                "scores": self.scores}  # fmt: skip
        return cell_file(folder, what)


def cells(folder: Path, shots: Sequence[int], draws: int, *, practical: bool) -> list[Cell]:
    """List the cells of a folder of arrays."""
    found = []
    for train in sorted(folder.glob("*__train.npz")):
        name = train.stem.removesuffix("__train")
        tests = tuple(sorted(folder.glob(f"{name}__test*.npz")))
        other = OUTSIDERS.get(name.partition("_")[0], "") if practical else ""
        outside = next(iter(folder.glob(f"{other}_*__test.npz")), None) if other else None
        found += [
            Cell(train, tests, k, draws, outside, practical, tuple(published())) for k in shots
        ]
    return found


def measured(wanted: Sequence[Cell], kept: Path, jobs: int) -> list[dict[str, Any]]:
    """Measure what is not kept already, on several cores; return one row a split and cell."""
    files = [cell.file(kept) for cell in wanted]
    missing = [(cell, file) for cell, file in zip(wanted, files, strict=True) if not file.exists()]
    for done, _ in enumerate(Workers(jobs).map(measure, missing), 1):
        print(f"{done} of {len(missing)} cells measured", flush=True)
    return [row for file in files for row in json.loads(file.read_text("utf-8"))]


def measure(cell: Cell, file: Path) -> None:
    """Measure one cell and keep it."""
    warnings.simplefilter("ignore", TrustVLMWarning)  # a set may have fewer shots of a class
    warnings.simplefilter("ignore", FewSamplesWarning)  # the intervals show it
    support = load_arrays(cell.train)
    tests = [load_arrays(test) for test in cell.tests]
    encoded = EncodedDataset.from_arrays(support, tests, [cell.shots], cell.draws)
    distinct: dict[bytes, int] = {}
    for (_, draw), rows in encoded.draws.items():
        distinct.setdefault(np.sort(rows).tobytes(), draw)
    draws = list(distinct.values())
    by_test: dict[str, list[Measurement]] = {test.name: [] for test in tests}
    for draw in draws:
        for one in measure_draw(encoded, cell.scores, cell.shots, draw, "exact"):
            by_test[one.dataset].append(one)
    found = []
    for test in tests:
        row = {"set": cell.name, "test": test.name, "shots": cell.shots, "draws": len(draws),
               "shots_held": round(len(encoded.draws[cell.shots, draws[0]]) / support.n_classes, 1),
               "n": len(test), "classes": support.n_classes}  # fmt: skip
        row |= _statistics(by_test[test.name], cell.scores)
        if cell.practical:
            row |= _practice(by_test[test.name])
        if cell.outside and test.name.endswith("__test"):
            row["outside"] = _outside(encoded, test, load_arrays(cell.outside), cell.shots, draws)
        found.append(row)
    write_cell(file, nan_to_null(found))


# Metrics: means over the draws, spread over them, intervals over images.


def _statistics(of_test: Sequence[Measurement], scores: Sequence[str]) -> dict[str, Any]:
    samples = {f"{m.score} {m.draw}": (m.result.confidence, m.correct) for m in of_test}
    drawn = resample(samples, METRICS, n_resamples=RESAMPLES)
    keys = {name: [f"{m.score} {m.draw}" for m in of_test if m.score == name] for name in scores}
    values = {
        name: {metric: _value(drawn, keys[name], metric) for metric in METRICS} for name in scores
    }
    groups = [[s for s in scores if get(s).corrects is corrects] for corrects in (False, True)]
    pairs = [pair for group in groups for pair in combinations(group, 2)]
    # How much better or worse than the VLM's own label a corrected one is.
    pairs += [(name, "msp") for name in groups[1]]
    differences = {
        f"{a} - {b}": {
            metric: _difference(drawn, keys[a], keys[b], metric) for metric in ("accuracy", "aurc")
        }
        for a, b in pairs
    }
    return {"scores": values, "differences": differences}


def _value(drawn: Bootstrap, keys: Sequence[str], metric: str) -> list[float]:
    """Mean and standard deviation over draws; interval over images, its ends averaged over draws.

    Draws share the images, so that the average of their intervals is no shorter than that of
    their mean.
    """
    ends = [
        metric_interval(
            metric,
            drawn.rankings[key],
            drawn.estimates[key][metric],
            drawn.samples[key][metric],
            LEVEL,
        )[:2]
        for key in keys
    ]
    over_draws = spread([drawn.estimates[key][metric] for key in keys])
    return [over_draws.mean, over_draws.sd, *map(float, np.mean(ends, axis=0))]


def _difference(
    drawn: Bootstrap, a: Sequence[str], b: Sequence[str], metric: str
) -> tuple[float, float, float, float]:
    """Difference a - b of the means over draws, its interval and p-value over images."""
    mean = [np.mean([drawn.estimates[key][metric] for key in keys]) for keys in (a, b)]
    samples = [np.mean([drawn.samples[key][metric] for key in keys], axis=0) for keys in (a, b)]
    pair = PairedDifference.of_samples(
        metric,
        (drawn.rankings[a[0]], drawn.rankings[b[0]]),
        (float(mean[0]), float(mean[1])),
        samples[0] - samples[1],
        LEVEL,
    )
    return pair.difference, pair.low, pair.high, pair.p_value


# What teams ask: how much may be accepted, and how risk grows with it.


def _practice(of_test: Sequence[Measurement]) -> dict[str, Any]:
    n = len(of_test[0].correct)
    certified, curves = {}, {}
    for name in PRACTICAL:
        draws = [m for m in of_test if m.score == name]
        if name == "msp":  # knows no shots: every draw is the same
            draws = draws[:1]
        certified[name] = {
            f"{risk} {size}": _certified(draws, risk, size)
            for risk in RISKS
            for size in SIZES
            if n - size >= SIZES[0]
        }
        curves[name] = _curve(draws)
    oracle = {
        name: np.mean([_oracle(m.correct) for m in of_test if m.score == name], axis=0).tolist()
        for name in ("msp", "auto_star")
    }
    return {"certified": certified, "curves": curves, "oracle": oracle}


def _certified(draws: Sequence[Measurement], risk: float, size: int) -> dict[str, float]:
    """Certify on some images, accept among the others, again and again.

    `coverage`, `low` and `high` are the mean and the 10th and 90th percentile over splits of the
    share accepted, `wrong` the share wrong of all that were accepted, `broken` the share of the
    splits in which more than `risk` of all images above the threshold are wrong.
    """
    covered, broken, accepted, errors = [], [], 0, 0
    for one in draws:
        confidence, correct = np.asarray(one.result.confidence), one.correct
        for split in range(SPLITS):
            order = np.random.default_rng(split).permutation(len(correct))
            known, new = order[:size], order[size:]
            threshold = certify(confidence[known], correct[known], risk).threshold
            taken = confidence[new] >= threshold  # NaN accepts nothing
            covered.append(taken.mean())
            accepted += int(taken.sum())
            errors += int((taken & ~correct[new]).sum())
            above = confidence >= threshold
            broken.append(bool(above.any()) and (~correct[above]).mean() > risk)
    low, high = np.quantile(covered, (0.1, 0.9))
    return {
        "coverage": float(np.mean(covered)),
        "low": float(low),
        "high": float(high),
        "wrong": errors / accepted if accepted else math.nan,
        "broken": float(np.mean(broken)),
    }


def _curve(draws: Sequence[Measurement]) -> dict[str, list[float]]:
    bands = [metrics.risk_band(m.result.confidence, m.correct, COVERAGE) for m in draws]
    return {
        part: np.mean([getattr(band, part) for band in bands], axis=0).tolist()
        for part in ("risk", "low", "high")
    }


def _oracle(correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Risk of a perfect order of the same labels at every coverage."""
    return np.asarray(np.maximum(0.0, 1 - correct.mean() / COVERAGE))


def _outside(
    encoded: EncodedDataset, test: ArraySet, other: ArraySet, shots: int, draws: Sequence[int]
) -> dict[str, Any]:
    """Share of another set's images that is accepted where most right labels are.

    The threshold keeps 80 % of the right labels; 40 % of the batch are of the other set.
    """
    rng = np.random.default_rng(0)
    count = int(min(len(other), len(test) * OUTSIDE / (1 - OUTSIDE)))
    inside = np.sort(rng.permutation(len(test))[: round(count * (1 - OUTSIDE) / OUTSIDE)])
    chosen = np.sort(rng.permutation(len(other))[:count])
    batch = _joined(test.rows(inside), other.rows(chosen))
    inner = np.arange(len(batch)) < len(inside)
    shares: dict[str, list[float]] = {name: [] for name in (*PRACTICAL, GATED, "stopped")}
    for draw in draws:
        evidence = encoded.support.shots(encoded.draws[shots, draw])
        images = batch.about(evidence)
        prepared = {name: prepare(name, evidence) for name in PRACTICAL}
        for name, result in score_together(prepared, images).items():
            right = inner & (result.prediction == batch.labels)
            threshold = np.quantile(result.confidence[right], 1 - KEPT, method="lower")
            accepted = result.confidence >= threshold
            shares[name].append(float(accepted[~inner].mean()))
            if name == "auto_star":
                eligible = _eligible(images, result.prediction)
                shares[GATED].append(float((accepted & eligible)[~inner].mean()))
                shares["stopped"].append(float((~eligible)[right & accepted].mean()))
    trials = {"stopped": round(float(KEPT * right.sum()))}
    return {
        "of": other.name,
        "accepted": {
            name: _proportion(of_draws, trials.get(name, count))
            for name, of_draws in shares.items()
        },
    }


def _proportion(of_draws: Sequence[float], n: int) -> list[float]:
    over_draws = spread(of_draws)
    ends = clopper_pearson(over_draws.mean, n, LEVEL)
    return [over_draws.mean, over_draws.sd, *map(float, ends)]


def _eligible(evidence: Evidence, prediction: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which labels the out-of-distribution gate of `predict` lets through."""
    shown = explain(evidence, prediction, OODGate.of_shots(evidence))
    return np.asarray(shown.resemblance.eligible)


def _joined(test: ArraySet, other: ArraySet) -> ArraySet:
    logits = zero_shot_logits(other.image_embeddings, test.text_embeddings)
    return ArraySet(
        test.name,
        np.concatenate([test.logits, logits]),
        np.concatenate([test.features, other.features]),
        np.concatenate([test.labels, np.zeros(len(other), dtype=np.int64)]),
        test.class_names,
        np.concatenate([test.image_embeddings, other.image_embeddings]),
        test.text_embeddings,
    )


@cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _code() -> str:
    package = Path(trustvlm.__file__).parent
    files = [Path(__file__), *(f for room in _CODE for f in sorted((package / room).glob("*.py")))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
