"""Two evaluations on the same images: what differs by more than chance, in words and on a page."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.exceptions import FewSamplesWarning, InputError, UndefinedMetricWarning
from trustvlm.files import write_text
from trustvlm.metrics.intervals import FEW
from trustvlm.metrics.paired import holm
from trustvlm.plots.risk_coverage import risk_coverage_figure
from trustvlm.report.page import render
from trustvlm.report.summary import Acceptance
from trustvlm.report.terminal import empty_table
from trustvlm.serialization import nan_to_null
from trustvlm.tables.metrics import METRIC_COLUMNS, all_columns, number, registered_units
from trustvlm.text import counted, percent, printable, shortened

if TYPE_CHECKING:
    from rich.table import Table


# One evaluation, read back from the file that `trustvlm evaluate --json` wrote.


@dataclass(frozen=True)
class Run:
    """What one score of one evaluation said of n images.

    Attributes
    ----------
    name
        What the run is called: the name of its file.
    score
        Name of the score.
    metadata
        The rest of the file: `data`, `model`, `rows` and so on.
    paths, hashes
        n names of images, and the SHA-256 of their contents; None where the file has none.
    truths, labels
        n names of the true and of the predicted classes.
    correct
        `(n,)` bool.
    confidence
        `(n,)` float64, higher is more trusted.
    """

    name: str
    score: str
    metadata: Mapping[str, Any]
    paths: tuple[str, ...]
    hashes: tuple[str | None, ...]
    truths: tuple[str, ...]
    labels: tuple[str, ...]
    correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def dataset(self) -> str:
        """Name of the data set, as far as the file tells."""
        return str(_mapping(self.metadata.get("data")).get("name") or "")


def read_run(path: str | os.PathLike[str], score: str | None = None) -> Run:
    """Read what one score said; by default the model's own.

    Parameters
    ----------
    path
        A file of `trustvlm evaluate --json`.
    score
        Name of one of the scores in it.

    Raises
    ------
    InputError
        If the file cannot be read, is no such file, is of a version that did not keep what was
        said of each image, or has no such score.
    """
    source = Path(path)
    metadata = _read_json(source)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("images"), dict):
        raise InputError(
            f"Expected {source} to hold `images`, as files of `trustvlm evaluate --json` do, but "
            "it does not: evaluate again, with --json."
        )
    images = metadata.pop("images")
    name = score or str(metadata.get("score"))
    scores = images.get("scores")
    if not isinstance(scores, dict) or name not in scores:
        held = ", ".join(scores) if isinstance(scores, dict) else "none"
        raise InputError(f"Expected a score that {source} holds ({held}), but got {name!r}.")
    try:
        return _run(source.stem, name, metadata, images, scores[name])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"Expected the images of {source} to be whole, but they are not "
            f"({type(error).__name__}: {error}): evaluate again, with --json."
        ) from error


def _read_json(source: Path) -> Any:
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FileNotFoundError):
            problem = "there is no such file: check the path"
        elif isinstance(error, IsADirectoryError):
            problem = "it is a folder: name the file inside it"
        elif isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
            problem = f"it cannot be read ({reason}): see to it that you may read it"
        else:
            problem = "its content is no JSON: evaluate again, with --json"
        raise InputError(
            f"Expected {source} to be a file that `trustvlm evaluate --json` wrote, but {problem}."
        ) from error


def _run(
    name: str,
    score: str,
    metadata: Mapping[str, Any],
    images: Mapping[str, Any],
    rows: Mapping[str, Any],
) -> Run:
    names = [str(label) for label in images["class_names"]]
    truth = np.array(images["label"], dtype=np.int64)
    prediction = np.array(rows["prediction"], dtype=np.int64)
    confidence = np.array(rows["confidence"], dtype=np.float64)
    n = len(truth)
    sizes = [len(images["path"]), len(images["sha256"]), len(prediction), len(confidence)]
    if sizes != 4 * [n]:
        raise ValueError(f"columns of {', '.join(map(str, sizes))} for {n} images")
    if not np.isfinite(confidence).all():
        raise ValueError(f"a confidence of `{score}` is not finite")
    if n and min(truth.min(), prediction.min()) < 0:
        raise ValueError("a class has a negative index")
    return Run(
        name=name,
        score=score,
        metadata=metadata,
        paths=tuple(str(path) for path in images["path"]),
        hashes=tuple(images["sha256"]),
        truths=tuple(names[i] for i in truth),
        labels=tuple(names[i] for i in prediction),
        correct=truth == prediction,
        confidence=confidence,
    )


# Which image of one run is which image of another.


@dataclass(frozen=True)
class Pairing:
    """Images that are in both runs.

    Attributes
    ----------
    a, b
        `(k,)` positions in either run, in the order of a.
    by
        What they were recognised by: `content` or `path`.
    only_a, only_b
        How many images are in one run alone.
    relabelled
        How many images in both have another true label in either.
    """

    a: NDArray[np.intp]
    b: NDArray[np.intp]
    by: str
    only_a: int
    only_b: int
    relabelled: int


def pair(a: Run, b: Run) -> Pairing:
    """Pair the images of two runs by content, or by path where a run does not know the contents.

    Copies of one image are paired in their order.

    Raises
    ------
    InputError
        If the runs have no image in common.
    """
    by = "content" if all(a.hashes) and all(b.hashes) else "path"
    keys_a, keys_b = (a.hashes, b.hashes) if by == "content" else (a.paths, b.paths)
    waiting: dict[str | None, list[int]] = defaultdict(list)
    for j in reversed(range(len(b))):
        waiting[keys_b[j]].append(j)
    pairs = [(i, waiting[key].pop()) for i, key in enumerate(keys_a) if waiting.get(key)]
    if not pairs:
        raise InputError(
            f"Expected two runs on the same images, but {a.name} ({len(a)} images) and {b.name} "
            f"({len(b)} images) have none in common, by {by}."
        )
    left, right = np.array(pairs, dtype=np.intp).T
    relabelled = sum(a.truths[i] != b.truths[j] for i, j in pairs)
    return Pairing(left, right, by, len(a) - len(pairs), len(b) - len(pairs), relabelled)


# Two evaluations on the same images: what differs by more than chance.

# What one comparison is judged by, whatever the other metrics say.
LEADING = "aurc"


@dataclass(frozen=True)
class Difference:
    """A metric of two runs on the same images, as fractions.

    Attributes
    ----------
    metric
        Name of the metric.
    a, b
        Its values.
    difference, low, high
        b - a, and its paired bootstrap interval.
    p_value, p_adjusted
        Two-sided, and after Holm's correction for the metrics beside AURC, which is named in
        advance as the one to judge by and keeps its own.
    level
        Nominal coverage of the interval.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    level: float

    @property
    def significant(self) -> bool:
        """Whether there is a difference, after correction; False where nothing is defined."""
        return self.p_adjusted <= 1 - self.level + 1e-12


@dataclass(frozen=True)
class LabelChanges:
    """How many of the labels of b are right where those of a are, and where they are not.

    Attributes
    ----------
    both, only_a, only_b, neither
        Images labelled right by both runs, by one alone, by none.
    p_value
        Of McNemar's exact test: that right by a alone and right by b alone are equally likely.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float


@dataclass(frozen=True)
class RunComparison:
    """Two runs, their pairing, and what differs.

    Attributes
    ----------
    a, b, pairing
        The runs, and which images they share.
    correct_a, correct_b
        `(k,)` bool, on the shared images.
    confidence_a, confidence_b
        `(k,)` float64.
    differences
        By metric, in the order of `metrics.names()`.
    switched
        Of the labels.
    n_resamples
        Of the bootstrap.
    """

    a: Run
    b: Run
    pairing: Pairing
    correct_a: NDArray[np.bool_]
    correct_b: NDArray[np.bool_]
    confidence_a: NDArray[np.float64]
    confidence_b: NDArray[np.float64]
    differences: tuple[Difference, ...]
    switched: LabelChanges
    n_resamples: int

    @property
    def n(self) -> int:
        """Number of images in both runs."""
        return len(self.correct_a)

    def of(self, metric: str) -> Difference:
        """Return the difference of one metric."""
        return next(one for one in self.differences if one.metric == metric)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain JSON values; NaN becomes None."""
        return {
            "a": {"name": self.a.name, "score": self.a.score, "images": len(self.a)},
            "b": {"name": self.b.name, "score": self.b.score, "images": len(self.b)},
            "n": self.n,
            "paired_by": self.pairing.by,
            "relabelled": self.pairing.relabelled,
            "n_resamples": self.n_resamples,
            "switched": nan_to_null(asdict(self.switched)),
            "differences": [nan_to_null(asdict(one)) for one in self.differences],
        }


def compare_runs(
    a: Run, b: Run, *, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> RunComparison:
    """Compare two runs by every metric, on the images that both have.

    Parameters
    ----------
    a, b
        Two runs; differences are b - a.
    n_resamples, seed, level
        As of `metrics.paired_bootstrap`. Metrics are in the `exact` convention.

    Raises
    ------
    InputError
        If the runs have no image in common, or numbers are out of range.

    Notes
    -----
    A run is right or wrong by its own true labels; how many of them differ is counted.
    """
    a, b = _with_names_apart(a, b)
    shared = pair(a, b)
    correct_a, correct_b = a.correct[shared.a], b.correct[shared.b]
    confidence_a, confidence_b = a.confidence[shared.a], b.confidence[shared.b]
    with warnings.catch_warnings():
        # The tables say what is undefined, the cautions where few labels are wrong, or right.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.simplefilter("ignore", FewSamplesWarning)
        # The second run first: the difference is what changed.
        tests = metrics.paired_bootstraps(
            confidence_b,
            confidence_a,
            correct_b,
            correct_a,
            n_resamples=n_resamples,
            seed=seed,
            level=level,
        )
    others = iter(holm([one.p_value for one in tests.values() if one.metric != LEADING]))
    differences = [
        Difference(
            metric=one.metric,
            a=one.b,
            b=one.a,
            difference=one.difference,
            low=one.low,
            high=one.high,
            p_value=one.p_value,
            p_adjusted=float(one.p_value if one.metric == LEADING else next(others)),
            level=level,
        )
        for one in tests.values()
    ]
    return RunComparison(
        a=a,
        b=b,
        pairing=shared,
        correct_a=correct_a,
        correct_b=correct_b,
        confidence_a=confidence_a,
        confidence_b=confidence_b,
        differences=tuple(differences),
        switched=_switched(correct_a, correct_b),
        n_resamples=n_resamples,
    )


def _with_names_apart(a: Run, b: Run) -> tuple[Run, Run]:
    """Give runs of one name the names of their scores, or else letters."""
    if a.name == b.name and a.score != b.score:
        return replace(a, name=a.score), replace(b, name=b.score)
    if a.name == b.name:
        return replace(a, name=f"A ({a.name})"), replace(b, name=f"B ({b.name})")
    return a, b


def _switched(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> LabelChanges:
    """Cross the two; McNemar 1947 in the exact form, a binomial test of the switched images.

    Examples
    --------
    >>> _switched(np.array([1, 1, 0], bool), np.array([1, 0, 0], bool))
    LabelChanges(both=1, only_a=1, only_b=0, neither=1, p_value=1.0)
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    moved = only_a + only_b
    p_value = float(binomtest(only_b, moved).pvalue) if moved else 1.0
    return LabelChanges(int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()), p_value)


# The comparison of two runs in words and in table cells.


def comparison_findings(comparison: RunComparison) -> list[str]:
    """Return the headline: which run is better by AURC, by accuracy, and how sure that is."""
    a, b = comparison.a.name, comparison.b.name
    switched = comparison.switched
    sentences = [f"{counted(comparison.n, 'image')} in both runs.", _aurc(comparison)]
    if not switched.only_a + switched.only_b:
        return [*sentences, "Every image is labelled right by both runs or by neither."]
    verdict = "more than chance" if switched.p_value <= 0.05 else "no more than chance may do"
    return [
        *sentences,
        f"{b} labels {counted(switched.only_b, 'image')} right that {a} labels wrong, and "
        f"{switched.only_a:,} the other way round: {verdict}, p {p_value_text(switched.p_value)} "
        "(McNemar's exact test).",
    ]


def _aurc(comparison: RunComparison) -> str:
    aurc = comparison.of("aurc")
    if math.isnan(aurc.difference):
        return "The AURC is undefined for one of the runs, so there is nothing to compare by it."
    leader = comparison.b.name if aurc.difference < 0 else comparison.a.name
    values = f"{number(1000 * aurc.a, 1)} and {number(1000 * aurc.b, 1)} (x1000, lower is better)"
    interval = (
        f"difference {number(1000 * aurc.difference, 1)}, "
        f"{100 * aurc.level:g}\N{NO-BREAK SPACE}% interval {number(1000 * aurc.low, 1)} to "
        f"{number(1000 * aurc.high, 1)}, p {p_value_text(aurc.p_value)}"
    )
    if aurc.difference == 0:
        return f"The AURC is the same, {number(1000 * aurc.a, 1)} (x1000)."
    if aurc.p_value <= 1 - aurc.level:
        return f"By AURC {leader} is better: {values}; {interval}."
    return f"These images cannot tell which AURC is better: {values}; {interval}."


def comparison_cautions(comparison: RunComparison) -> list[str]:
    """Return what a reader must know before relying on the comparison."""
    pairing, a, b = comparison.pairing, comparison.a, comparison.b
    notes = []
    if pairing.only_a or pairing.only_b:
        notes.append(
            f"Left out: {counted(pairing.only_a, 'image')} of {a.name} and "
            f"{counted(pairing.only_b, 'image')} of {b.name} that the other run does not have."
        )
    if pairing.by == "path":
        notes.append("Images were paired by path, as their contents are not known.")
    if pairing.relabelled:
        notes.append(
            f"{counted(pairing.relabelled, 'image')} of both runs have another true label in "
            "either: each run is judged by its own."
        )
    fewest = min(
        int(labels.sum())
        for correct in (comparison.correct_a, comparison.correct_b)
        for labels in (correct, ~correct)
    )
    if fewest < FEW:
        notes.append(
            f"Fewer than {FEW} labels of a run are wrong, or right: intervals and tests are wide "
            "and rough."
        )
    notes.append(
        "The tests speak of other images like these. They do not speak of other shots, and a "
        "model or score that was chosen because it did well on these images looks better than "
        "it is."
    )
    notes.append(
        f"AURC is the metric to judge by, whatever the others say: each of the other "
        f"{len(comparison.differences) - 1} is called better or worse only where that holds after "
        "Holm's correction for all of them."
    )
    return notes


def better(comparison: RunComparison, difference: Difference) -> str:
    """Name the run that a metric favours by more than chance; "" if it favours none."""
    if math.isnan(difference.difference) or not difference.significant:
        return ""
    column = METRIC_COLUMNS[difference.metric]
    b_better = (difference.difference > 0) == column.higher_is_better
    return comparison.b.name if b_better else comparison.a.name


def p_value_text(p_value: float) -> str:
    """Write a p-value with three decimals.

    Examples
    --------
    >>> p_value_text(0.0312), p_value_text(0.00001), p_value_text(float("nan"))
    ('0.031', 'under 0.001', 'undefined')
    """
    if math.isnan(p_value):
        return "undefined"
    return "under 0.001" if p_value < 0.0005 else f"{p_value:.3f}"


def run_facts(comparison: RunComparison) -> list[tuple[str, str, str]]:
    """Return what each run was made with: terms, and the values of a and of b."""
    facts_a, facts_b = _facts(comparison.a.metadata), _facts(comparison.b.metadata)
    rows = [
        ("score", comparison.a.score, comparison.b.score),
        ("images", f"{len(comparison.a):,}", f"{len(comparison.b):,}"),
        (
            "right labels, of the shared images",
            percent(float(comparison.correct_a.mean())),
            percent(float(comparison.correct_b.mean())),
        ),
    ]
    terms = dict.fromkeys([*facts_a, *facts_b])
    return rows + [(term, facts_a.get(term, ""), facts_b.get(term, "")) for term in terms]


def _facts(metadata: Mapping[str, Any]) -> dict[str, str]:
    from trustvlm.pipeline.evaluate import fingerprint_of_shots

    data, model = _mapping(metadata.get("data")), _mapping(metadata.get("model"))
    shots = _mapping(model.get("shots"))
    rows = {"data set": data.get("name"), "data fingerprint": data.get("fingerprint")}
    for role, described in _mapping(model.get("models")).items():
        rows[role] = _mapping(described).get("spec")
        rows[f"{role} fingerprint"] = _mapping(described).get("fingerprint")
    rows["shots per class"] = shots.get("per_class")
    rows["draw of the shots"] = shots.get("draw")
    rows["fingerprint of the shots"] = fingerprint_of_shots(model) or None
    rows["parameters"] = _mapping(model.get("score")).get("parameters") or None
    rows["made by"] = model.get("created_by")
    return {
        term: shortened(value if isinstance(value, str) else json.dumps(value), 200)
        for term, value in rows.items()
        if value is not None
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# The comparison of two runs as one self-contained HTML page, and as a terminal table.

_RESAMPLES, _LISTED = 500, 50


def write_comparison(comparison: RunComparison, path: str | os.PathLike[str]) -> None:
    """Write the comparison as one HTML file, whole or not at all."""
    write_text(path, render_comparison(comparison))


def render_comparison(comparison: RunComparison) -> str:
    """Return the comparison as one HTML page: no other file, no other host, same bytes each time.

    At most 50 images of a kind are listed.
    """
    only_a = comparison.correct_a & ~comparison.correct_b
    only_b = comparison.correct_b & ~comparison.correct_a
    return render(
        "comparison.html.j2",
        comparison=comparison,
        a=comparison.a.name,
        b=comparison.b.name,
        figure=comparison_figure(comparison),
        tiles=_tiles(comparison),
        findings=comparison_findings(comparison),
        cautions=comparison_cautions(comparison),
        rows=_rows(comparison),
        columns=all_columns(),
        groups=[
            (f"Right by {shortened(run.name, 80)} alone", _images(comparison, only), only.sum())
            for run, only in ((comparison.b, only_b), (comparison.a, only_a))
        ],
        facts=run_facts(comparison),
    )


def comparison_figure(comparison: RunComparison) -> str:
    """Draw both risk-coverage curves with their bands, as SVG; "" for fewer than two images."""
    if comparison.n < 2:
        return ""
    curves, bands, areas = {}, {}, {}
    for run, confidence, correct in (
        (comparison.a, comparison.confidence_a, comparison.correct_a),
        (comparison.b, comparison.confidence_b, comparison.correct_b),
    ):
        name = shortened(run.name, 20)
        # Long names may be shortened to the same.
        name = f"{name} (B)" if name in curves else name
        curves[name] = Acceptance.of(confidence, correct).curve()
        band = metrics.risk_band(confidence, correct, curves[name][0], n_resamples=_RESAMPLES)
        bands[name] = (band.low, band.high)
        areas[name] = metrics.aurc(confidence, correct)
    last = list(curves)[-1]
    return risk_coverage_figure(curves, highlight=last, bands=bands, aurc=areas).svg()


def comparison_table(comparison: RunComparison) -> Table:
    """Build the terminal table of all metrics; it fits 80 columns unless names are long."""
    from rich.text import Text

    table = empty_table(
        f"{comparison.b.name} against {comparison.a.name}: "
        f"{counted(comparison.n, 'image')}, paired by {comparison.pairing.by}",
        f"Difference with its {100 * comparison.differences[0].level:g} % interval (paired "
        "bootstrap); p corrected (Holm)\nexcept AURC's. The AURC family is x1000, "
        f"{registered_units()}the rest in percent.",
    )
    table.add_column("Metric", no_wrap=True, min_width=12)
    for name in (comparison.a.name, comparison.b.name):
        heading = Text(shortened(printable(name), 10))
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    table.add_column("Difference", justify="right", no_wrap=True, min_width=26)
    table.add_column("p", justify="right", no_wrap=True, min_width=6)
    table.add_column("Better", overflow="ellipsis", no_wrap=True, min_width=6)
    for row in _rows(comparison):
        interval = f"{row['difference']} [{row['low']}, {row['high']}]"
        table.add_row(
            row["title"],
            row["a"].replace("undefined", "-"),
            row["b"].replace("undefined", "-"),
            Text("-" if row["difference"] == "undefined" else interval),
            row["p"].replace("under ", "<").replace("undefined", "-"),
            Text(shortened(printable(row["better"]), 14)),
        )
    return table


def _tiles(comparison: RunComparison) -> list[tuple[str, str]]:
    runs = ((comparison.a, comparison.correct_a), (comparison.b, comparison.correct_b))
    return [
        (f"{comparison.n:,}", "images in both runs"),
        *(
            (percent(float(correct.mean())), f"right by {shortened(run.name, 40)}")
            for run, correct in runs
        ),
        (p_value_text(comparison.of("aurc").p_value), "p-value of the difference in AURC"),
    ]


def _rows(comparison: RunComparison) -> list[dict[str, Any]]:
    values = ("a", "b", "difference", "low", "high")
    return [
        {
            "title": column.title,
            "unit": column.sign,
            "meaning": column.meaning,
            **{key: number(getattr(one, key) * column.scale) for key in values},
            "p": p_value_text(one.p_adjusted),
            "better": better(comparison, one),
        }
        for column, one in ((column, comparison.of(column.name)) for column in all_columns())
    ]


def _images(comparison: RunComparison, chosen: NDArray[np.bool_]) -> list[dict[str, str]]:
    """Return the first images of a kind, most trusted by the wrong run first."""
    at = np.flatnonzero(chosen)
    wrong_in_a = bool(len(at)) and not comparison.correct_a[at[0]]
    trust = comparison.confidence_a if wrong_in_a else comparison.confidence_b
    a, b, pairing = comparison.a, comparison.b, comparison.pairing
    return [
        {
            "path": a.paths[pairing.a[k]],
            "truth": a.truths[pairing.a[k]],
            "a": a.labels[pairing.a[k]],
            "b": b.labels[pairing.b[k]],
            "confidence_a": f"{comparison.confidence_a[k]:.3f}",
            "confidence_b": f"{comparison.confidence_b[k]:.3f}",
        }
        for k in at[np.argsort(-trust[at], kind="stable")[:_LISTED]]
    ]
