"""Two evaluations on the same images: what differs by more than chance, in words and on a page."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.exceptions import InputError, UndefinedMetricWarning
from trustvlm.files import write_text
from trustvlm.metrics.paired import holm
from trustvlm.plots.risk_coverage import risk_coverage_figure
from trustvlm.report.page import render
from trustvlm.report.summary import BIBTEX, CITATION, PAPER_URL, Acceptance
from trustvlm.tables.metrics import COLUMNS, MetricColumn, number
from trustvlm.text import counted, percent, shortened

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
    told
        The rest of the file: `data`, `model`, `rows` and so on.
    paths, hashes
        n names of images, and the SHA-256 of their contents; None where it is not known.
    truths, labels
        n names of the true and of the predicted classes.
    correct
        `(n,)` bool.
    confidence
        `(n,)` float64, higher is more trusted.
    """

    name: str
    score: str
    told: Mapping[str, Any]
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
        data = self.told.get("data")
        return str(data.get("name") or "") if isinstance(data, Mapping) else ""


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
    told = _read_json(source)
    if not isinstance(told, dict) or not isinstance(told.get("images"), dict):
        raise InputError(
            f"Expected {source} to hold `images`, as files of `trustvlm evaluate --json` do, but "
            "it does not: evaluate again, with --json."
        )
    images = told.pop("images")
    name = score or str(told.get("score"))
    scores = images.get("scores")
    if not isinstance(scores, dict) or name not in scores:
        there = ", ".join(scores) if isinstance(scores, dict) else "none"
        raise InputError(f"Expected a score that {source} holds ({there}), but got {name!r}.")
    try:
        return _run(source.stem, name, told, images, scores[name])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"Expected the images of {source} to be whole, but they are not "
            f"({type(error).__name__}: {error}): evaluate again, with --json."
        ) from error


def _read_json(source: Path) -> Any:
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        what, remedy = "there is no such file", "check the path"
        raise _no_evaluation(source, what, remedy) from error
    except IsADirectoryError as error:
        what, remedy = "it is a folder", "name the file inside it"
        raise _no_evaluation(source, what, remedy) from error
    except OSError as error:
        what = f"it cannot be read ({error.strerror or type(error).__name__})"
        raise _no_evaluation(source, what, "see to it that you may read it") from error
    except (ValueError, RecursionError) as error:
        what, remedy = "its content is no JSON", "evaluate again, with --json"
        raise _no_evaluation(source, what, remedy) from error


def _no_evaluation(source: Path, what: str, remedy: str) -> InputError:
    return InputError(
        f"Expected {source} to be a file that `trustvlm evaluate --json` wrote, but {what}: "
        f"{remedy}."
    )


def _run(
    name: str,
    score: str,
    told: Mapping[str, Any],
    images: Mapping[str, Any],
    said: Mapping[str, Any],
) -> Run:
    names = [str(label) for label in images["class_names"]]
    truth = np.array(images["label"], dtype=np.int64)
    prediction = np.array(said["prediction"], dtype=np.int64)
    confidence = np.array(said["confidence"], dtype=np.float64)
    n = len(truth)
    columns: Sequence[Sequence[Any]] = (
        images["path"],
        images["sha256"],
        prediction.tolist(),
        confidence.tolist(),
    )
    if any(len(column) != n for column in columns):
        raise ValueError(f"columns of {', '.join(str(len(c)) for c in columns)} for {n} images")
    if not np.isfinite(confidence).all():
        raise ValueError(f"a confidence of `{score}` is not finite")
    if n and min(truth.min(), prediction.min()) < 0:
        raise ValueError("a class has a negative index")
    return Run(
        name=name,
        score=score,
        told=told,
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
    known = all(a.hashes) and all(b.hashes)
    left, right = _matched(*((a.hashes, b.hashes) if known else (a.paths, b.paths)))
    if not len(left):
        raise InputError(
            f"Expected two runs on the same images, but {a.name} ({len(a)} images) and {b.name} "
            f"({len(b)} images) have none in common, by {'content' if known else 'path'}."
        )
    relabelled = sum(a.truths[i] != b.truths[j] for i, j in zip(left, right, strict=True))
    return Pairing(
        a=left,
        b=right,
        by="content" if known else "path",
        only_a=len(a) - len(left),
        only_b=len(b) - len(right),
        relabelled=relabelled,
    )


def _matched(
    a: Sequence[str | None], b: Sequence[str | None]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    waiting: dict[str | None, list[int]] = defaultdict(list)
    for place in reversed(range(len(b))):
        waiting[b[place]].append(place)
    pairs = [(i, waiting[key].pop()) for i, key in enumerate(a) if waiting.get(key)]
    found = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


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
class Switched:
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
class Compared:
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
        By metric, in the order of `metrics.METRICS`.
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
    switched: Switched
    n_resamples: int

    @property
    def n(self) -> int:
        """Number of images in both runs."""
        return len(self.correct_a)

    def of(self, metric: str) -> Difference:
        """Return the difference of one metric."""
        return next(found for found in self.differences if found.metric == metric)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain JSON values; NaN becomes None."""
        return {
            "a": {"name": self.a.name, "score": self.a.score, "images": len(self.a)},
            "b": {"name": self.b.name, "score": self.b.score, "images": len(self.b)},
            "n": self.n,
            "paired_by": self.pairing.by,
            "relabelled": self.pairing.relabelled,
            "n_resamples": self.n_resamples,
            "switched": _plain(asdict(self.switched)),
            "differences": [_plain(asdict(found)) for found in self.differences],
        }


def compare_runs(
    a: Run, b: Run, *, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Compared:
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
    a, b = _told_apart(a, b)
    shared = pair(a, b)
    correct_a, correct_b = a.correct[shared.a], b.correct[shared.b]
    confidence_a, confidence_b = a.confidence[shared.a], b.confidence[shared.b]
    with warnings.catch_warnings():
        # The tables say what is undefined.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        # The second run first: the difference is what changed.
        tests = metrics.paired_bootstraps(
            confidence_b,
            confidence_a,
            correct_b,
            correct_a,
            [column.key for column in COLUMNS],
            n_resamples=n_resamples,
            seed=seed,
            level=level,
        )
    found = list(tests.values())
    others = iter(holm([one.p_value for one in found if one.metric != LEADING]))
    adjusted = [one.p_value if one.metric == LEADING else next(others) for one in found]
    return Compared(
        a=a,
        b=b,
        pairing=shared,
        correct_a=correct_a,
        correct_b=correct_b,
        confidence_a=confidence_a,
        confidence_b=confidence_b,
        differences=tuple(
            Difference(
                metric=one.metric,
                a=one.b,
                b=one.a,
                difference=one.difference,
                low=one.low,
                high=one.high,
                p_value=one.p_value,
                p_adjusted=float(p_adjusted),
                level=level,
            )
            for one, p_adjusted in zip(found, adjusted, strict=True)
        ),
        switched=_switched(correct_a, correct_b),
        n_resamples=n_resamples,
    )


def _told_apart(a: Run, b: Run) -> tuple[Run, Run]:
    """Give runs of one name the names of their scores, or else letters."""
    if a.name == b.name and a.score != b.score:
        return replace(a, name=a.score), replace(b, name=b.score)
    if a.name == b.name:
        return replace(a, name=f"A ({a.name})"), replace(b, name=f"B ({b.name})")
    return a, b


def _switched(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Switched:
    """Cross the two; McNemar 1947 in the exact form, a binomial test of the switched images.

    Examples
    --------
    >>> _switched(np.array([1, 1, 0], bool), np.array([1, 0, 0], bool))
    Switched(both=1, only_a=1, only_b=0, neither=1, p_value=1.0)
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    moved = only_a + only_b
    p_value = float(binomtest(only_b, moved).pvalue) if moved else 1.0
    return Switched(int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()), p_value)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


# What a comparison of two runs found, in words and in table cells.


def comparison_findings(found: Compared) -> list[str]:
    """Return the headline: which run is better by AURC, by accuracy, and how sure that is."""
    a, b = found.a.name, found.b.name
    switched = found.switched
    sentences = [f"{counted(found.n, 'image')} in both runs.", _aurc(found)]
    moved = switched.only_a + switched.only_b
    if not moved:
        sentences.append("Every image is labelled right by both runs or by neither.")
    else:
        sentences.append(
            f"{b} labels {counted(switched.only_b, 'image')} right that {a} labels wrong, and "
            f"{switched.only_a:,} the other way round: {_sure(switched.p_value)} "
            "(McNemar's exact test)."
        )
    return sentences


def _aurc(found: Compared) -> str:
    aurc = found.of("aurc")
    if math.isnan(aurc.difference):
        return "The AURC is undefined for one of the runs, so there is nothing to compare by it."
    leader = found.b.name if aurc.difference < 0 else found.a.name
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


def _sure(p_value: float) -> str:
    told = f"p {p_value_text(p_value)}"
    return f"more than chance, {told}" if p_value <= 0.05 else f"no more than chance may do, {told}"


def comparison_cautions(found: Compared) -> list[str]:
    """Return what a reader must know before relying on the comparison."""
    pairing, a, b = found.pairing, found.a, found.b
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
    notes.append(
        "The tests speak of other images like these. They do not speak of other shots, and a "
        "model or score that was chosen because it did well on these images looks better than "
        "it is."
    )
    notes.append(
        f"AURC is the metric to judge by, whatever the others say: each of the other "
        f"{len(found.differences) - 1} is called better or worse only where that holds after "
        "Holm's correction for all of them."
    )
    return notes


def better(found: Compared, difference: Difference) -> str:
    """Name the run that a metric favours by more than chance; "" if it favours none."""
    if math.isnan(difference.difference) or not difference.significant:
        return ""
    column = next(c for c in COLUMNS if c.key == difference.metric)
    b_better = (difference.difference > 0) == column.higher_is_better
    return found.b.name if b_better else found.a.name


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


def shown(column: MetricColumn, value: float) -> str:
    """Write a metric in the unit of its column."""
    return number(value * column.scale)


def run_facts(found: Compared) -> list[tuple[str, str, str]]:
    """Return what each run was made with: terms, and the values of a and of b."""
    told = [_facts(found.a.told), _facts(found.b.told)]
    rows = [
        ("score", found.a.score, found.b.score),
        ("images", f"{len(found.a):,}", f"{len(found.b):,}"),
        (
            "right labels, of the shared images",
            percent(float(found.correct_a.mean())),
            percent(float(found.correct_b.mean())),
        ),
    ]
    terms = dict.fromkeys([*told[0], *told[1]])
    rows += [(term, told[0].get(term, ""), told[1].get(term, "")) for term in terms]
    return rows


def _facts(told: Mapping[str, Any]) -> dict[str, str]:
    from trustvlm.pipeline.evaluate import fingerprint_of_shots

    data, model = _mapping(told.get("data")), _mapping(told.get("model"))
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


def write_comparison(found: Compared, path: str | os.PathLike[str]) -> None:
    """Write the comparison as one HTML file, whole or not at all."""
    write_text(path, render_comparison(found))


def render_comparison(found: Compared) -> str:
    """Return the comparison as one HTML page: no other file, no other host, same bytes each time.

    At most 50 images of a kind are listed.
    """
    from markupsafe import Markup

    figure = comparison_figure(found)
    only_a = found.correct_a & ~found.correct_b
    only_b = found.correct_b & ~found.correct_a
    return render(
        "comparison.html.j2",
        found=found,
        a=found.a.name,
        b=found.b.name,
        # Made by this package, which escapes what comes from data.
        figure=Markup(figure) if figure else "",  # noqa: S704
        tiles=_tiles(found),
        findings=comparison_findings(found),
        cautions=comparison_cautions(found),
        rows=_rows(found),
        columns=COLUMNS,
        groups=[
            (f"Right by {shortened(found.b.name, 80)} alone", *_listed(found, only_b)),
            (f"Right by {shortened(found.a.name, 80)} alone", *_listed(found, only_a)),
        ],
        facts=run_facts(found),
        citation=CITATION,
        bibtex=BIBTEX,
        paper_url=PAPER_URL,
    )


def comparison_figure(found: Compared) -> str:
    """Draw both risk-coverage curves with their bands, as SVG; "" for fewer than two images."""
    if found.n < 2:
        return ""
    curves, bands = {}, {}
    for run, confidence, correct in (
        (found.a, found.confidence_a, found.correct_a),
        (found.b, found.confidence_b, found.correct_b),
    ):
        name = shortened(run.name, 20)
        # Long names may be shortened to the same.
        name = f"{name} (B)" if name in curves else name
        curves[name] = Acceptance.of(confidence, correct).curve()
        band = metrics.risk_band(confidence, correct, curves[name][0], n_resamples=_RESAMPLES)
        bands[name] = (band.low, band.high)
    return risk_coverage_figure(curves, highlight=list(curves)[-1], bands=bands).svg()


def comparison_table(found: Compared) -> Table:
    """Build the terminal table of all metrics; it fits 80 columns unless names are long."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(
            f"{found.b.name} against {found.a.name}: {counted(found.n, 'image')}, paired by "
            f"{found.pairing.by}",
            style="bold",
        ),
        caption=Text(
            f"Difference with its {100 * found.differences[0].level:g} % interval (paired "
            "bootstrap); p corrected (Holm)\nexcept AURC's. The AURC family is x1000, the rest in "
            "percent."
        ),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("Metric", no_wrap=True, min_width=12)
    for name in (found.a.name, found.b.name):
        heading = Text(shortened(name, 10))
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    table.add_column("Difference", justify="right", no_wrap=True, min_width=26)
    table.add_column("p", justify="right", no_wrap=True, min_width=6)
    table.add_column("Better", overflow="ellipsis", no_wrap=True, min_width=6)
    for row in _rows(found):
        interval = f"{row['difference']} [{row['low']}, {row['high']}]"
        table.add_row(
            row["title"],
            row["a"].replace("undefined", "-"),
            row["b"].replace("undefined", "-"),
            Text("-" if row["difference"] == "undefined" else interval),
            row["p"].replace("under ", "<").replace("undefined", "-"),
            Text(shortened(row["better"], 14)),
        )
    return table


def _tiles(found: Compared) -> list[tuple[str, str]]:
    right = [float(np.mean(correct)) for correct in (found.correct_a, found.correct_b)]
    return [
        (f"{found.n:,}", "images in both runs"),
        (f"{percent(right[0])}", f"right by {shortened(found.a.name, 40)}"),
        (f"{percent(right[1])}", f"right by {shortened(found.b.name, 40)}"),
        (p_value_text(found.of("aurc").p_value), "p-value of the difference in AURC"),
    ]


def _rows(found: Compared) -> list[dict[str, Any]]:
    rows = []
    for column in COLUMNS:
        one = found.of(column.key)
        rows.append(
            {
                "title": column.title,
                "unit": "%" if column.scale == 100 else f"×{column.scale}",
                "meaning": column.meaning,
                **{k: shown(column, getattr(one, k)) for k in ("a", "b", "low", "high")},
                "difference": shown(column, one.difference),
                "p": p_value_text(one.p_adjusted),
                "better": better(found, one),
            }
        )
    return rows


def _listed(found: Compared, chosen: Any) -> tuple[list[dict[str, str]], int]:
    """Return the first images of a kind, most trusted by the wrong run first, and their number."""
    places = np.flatnonzero(chosen)
    wrong_in_a = bool(len(places)) and not found.correct_a[places[0]]
    trust = found.confidence_a if wrong_in_a else found.confidence_b
    rows = []
    for k in places[np.argsort(-trust[places], kind="stable")[:_LISTED]]:
        i, j = found.pairing.a[k], found.pairing.b[k]
        rows.append(
            {
                "path": found.a.paths[i],
                "truth": found.a.truths[i],
                "a": found.a.labels[i],
                "b": found.b.labels[j],
                "confidence_a": f"{found.confidence_a[k]:.3f}",
                "confidence_b": f"{found.confidence_b[k]:.3f}",
            }
        )
    return rows, len(places)
