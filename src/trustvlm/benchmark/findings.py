"""What a study found: which score is best, by how much, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.captions import describe_ranks
from trustvlm.benchmark.results import Results
from trustvlm.benchmark.statistics import LEVEL
from trustvlm.metrics import PairedDifference
from trustvlm.metrics.paired import holm
from trustvlm.tables.metrics import METRIC_COLUMNS, MetricColumn, describe_unit, number
from trustvlm.tables.scores import CORRECTS, signs_of
from trustvlm.tables.table import UNDEFINED, Cell, Head, Line, Table, signed
from trustvlm.text import counted, join_names


@dataclass(frozen=True)
class Rival:
    """A score beside the best one.

    Attributes
    ----------
    score, mean
        Its name, and its metric as the tables show it: a mean over data sets and draws.
    difference, low, high
        The best score less this one, on draw 0, as mean over data sets, and the interval of that;
        NaN where no test was possible.
    better, worse, undecided
        Numbers of test sets on which the best is significantly better or worse than this one, and
        on which neither can be said.
    """

    score: str
    mean: float
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    better: int = 0
    worse: int = 0
    undecided: int = 0

    @property
    def tested(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low + self.high)

    def beaten(self, column: MetricColumn) -> bool:
        """Whether the best score is better than this one by more than chance."""
        if not self.tested:
            return False
        return self.low > 0 if column.higher_is_better else self.high < 0


@dataclass(frozen=True)
class Finding:
    """The best of some scores by a metric, and the others beside it, best first."""

    metric: str
    best: Rival
    rivals: tuple[Rival, ...]
    n_data_sets: int
    n_test_sets: int

    @property
    def column(self) -> MetricColumn:
        """How the metric is shown."""
        return METRIC_COLUMNS[self.metric]

    @property
    def tested(self) -> bool:
        """Whether every other score was tested against the best."""
        return bool(self.rivals) and all(rival.tested for rival in self.rivals)

    @property
    def undecided(self) -> list[str]:
        """Scores that cannot be told apart from the best."""
        return [rival.score for rival in self.rivals if not rival.beaten(self.column)]

    def rival(self, score: str) -> Rival | None:
        """Return a score beside the best; None for the best itself, or if it was not ranked."""
        return next((rival for rival in self.rivals if rival.score == score), None)


def find(analysis: Analysis, metric: str, scores: Iterable[str] | None = None) -> Finding | None:
    """Compare the score of the best mean with every other; None if there is nothing to compare.

    Parameters
    ----------
    analysis, metric
        The results, and by what they are compared.
    scores
        Which; by default every score that has a value on every data set.

    Notes
    -----
    The interval of the mean difference puts the paired bootstrap intervals of the data sets, which
    are independent, together by the method of variance estimates recovery (Zou & Donner 2008,
    "Construction of confidence intervals about effect measures", Statistics in Medicine 27): the
    distances of their ends from the differences, squared, weighted and summed. It says what other
    images of these sets would give, not other data sets. That the best is better than every other
    score needs no correction for their number, as each comparison must be significant by itself.

    Examples
    --------
    >>> from trustvlm.benchmark import analysis, results
    >>> rows = [
    ...     {"dataset": "pets", "score": name, "shots": 16, "draw": 0, "aurc": aurc}
    ...     for name, aurc in (("msp", 0.2), ("trustvlm", 0.1))
    ... ]
    >>> finding = find(analysis.analyse(results.Results(rows), ["aurc"]), "aurc")
    >>> finding.best.score, finding.rivals[0].score, finding.tested
    ('trustvlm', 'msp', False)
    """
    column, ranks = METRIC_COLUMNS[metric], analysis.ranks[metric]
    wanted = ranks.scores if scores is None else [s for s in scores if s in ranks.scores]
    means = {score: analysis.mean(metric, score).mean for score in wanted}
    means = {score: mean for score, mean in means.items() if not math.isnan(mean)}
    if not means:
        return None
    sign = -1 if column.higher_is_better else 1
    best, *others = sorted(means, key=lambda score: (sign * means[score], score))
    tests = {score: _tests(analysis, metric, best, score) for score in others}
    adjusted = _adjusted(tests)
    return Finding(
        metric,
        Rival(best, means[best]),
        tuple(
            _rival(analysis, score, means[score], tests[score], adjusted[score], column)
            for score in others
        ),
        len(ranks.units),
        len(ranks.datasets),
    )


def _tests(analysis: Analysis, metric: str, best: str, other: str) -> dict[str, PairedDifference]:
    """Compare two scores on every test set that has samples of both, best less other."""
    return {
        dataset: analysis.resampled[dataset].difference(best, other, metric)
        for dataset in analysis.ranks[metric].datasets
        if dataset in analysis.resampled
        and {best, other} <= analysis.resampled[dataset].estimates.keys()
    }


def _adjusted(
    tests: dict[str, dict[str, PairedDifference]],
) -> dict[str, dict[str, float]]:
    """Return p-values by score and test set, corrected for the scores of a test set."""
    adjusted: dict[str, dict[str, float]] = {score: {} for score in tests}
    for dataset in dict.fromkeys(d for of_score in tests.values() for d in of_score):
        scores = [score for score, of_score in tests.items() if dataset in of_score]
        p_values = holm([tests[score][dataset].p_value for score in scores])
        for score, p in zip(scores, p_values, strict=True):
            adjusted[score][dataset] = float(p)
    return adjusted


def _rival(
    analysis: Analysis,
    score: str,
    mean: float,
    tests: dict[str, PairedDifference],
    p_values: dict[str, float],
    column: MetricColumn,
) -> Rival:
    if set(tests) != set(analysis.ranks[column.name].datasets):
        return Rival(score, mean)
    by_set: dict[str, list[PairedDifference]] = {}
    for dataset, test in tests.items():
        by_set.setdefault(analysis.results.set_of(dataset), []).append(test)
    difference = below = above = 0.0
    for of_set in by_set.values():
        weight = 1 / (len(by_set) * len(of_set))
        for test in of_set:
            low, high = test.low, test.high
            if test.difference == 0 and math.isnan(low + high):
                low = high = 0.0  # no image on which the two differ
            difference += weight * test.difference
            below += (weight * (test.difference - low)) ** 2
            above += (weight * (high - test.difference)) ** 2
    sign = 1 if column.higher_is_better else -1
    significant = [
        sign * tests[dataset].difference
        for dataset, p in p_values.items()
        if p <= 1 - LEVEL + 1e-12
    ]
    better, worse = (sum(s * d > 0 for d in significant) for s in (1, -1))
    return Rival(
        score,
        mean,
        difference,
        difference - math.sqrt(below),
        difference + math.sqrt(above),
        better,
        worse,
        len(tests) - better - worse,
    )


# The finding in words, and as a small table.

_NAMED, _BESIDE = 3, 3


def headline(finding: Finding) -> str:
    """Say which score is best, and whether that is more than chance, in one short sentence."""
    title, best = finding.column.title, finding.best.score
    if not finding.rivals:
        return f"{best} is the only score, with {_value(finding, finding.best)} by {title}."
    if not finding.tested:
        return f"{best} has the best {title}; whether by more than chance was not tested."
    undecided = finding.undecided
    if not undecided:
        others = "the other score" if len(finding.rivals) == 1 else "every other score"
        return f"{best} is best by {title}, significantly better than {others}."
    rest = f"{len(undecided)} scores" if len(undecided) > _NAMED else join_names(undecided)
    return f"{best} leads by {title}, but {rest} cannot be told apart from it."


def describe_finding(finding: Finding, analysis: Analysis) -> list[str]:
    """Say by how much the best score is better, than which, and on how many sets."""
    column, reference = finding.column, analysis.results.reference
    sets = counted(finding.n_data_sets, "data set")
    if finding.n_test_sets > finding.n_data_sets:
        sets += f" ({finding.n_test_sets} test sets)"
    where = f"mean over {sets}" if finding.n_test_sets > 1 else f"on {analysis.results.datasets[0]}"
    value = f"{finding.best.score} has {_value(finding, finding.best)}"
    opening = f"{describe_unit(column)}: {value}, {where}"
    if not finding.rivals:
        return [f"{opening}."]
    following = finding.rivals[0]
    sentences = [
        f"{opening}; next is {following.score} with {_value(finding, following)}"
        f"{_by_how_much(finding, following)}."
    ]
    for score, role in ((reference, "the reference"), ("msp", "the text alone")):
        rival = finding.rival(score)
        if rival is not None and rival is not following:
            sentences.append(
                f"{score}, {role}, has {_value(finding, rival)}{_by_how_much(finding, rival)}."
            )
    if CORRECTS in signs_of(finding.best.score):
        sentences += _of_keepers(finding, analysis)
    return [*sentences, *_of_other_sets(finding, analysis)]


def _of_keepers(finding: Finding, analysis: Analysis) -> list[str]:
    """Say which score is best among those that keep the labels of the VLM."""
    keepers = [s for s in analysis.results.scores if CORRECTS not in signs_of(s)]
    kept = find(analysis, finding.metric, keepers)
    if kept is None or not kept.rivals:
        return []
    return [
        f"It may change labels; of {len(kept.rivals) + 1} scores that keep them, "
        f"{headline(kept)} It has {_value(kept, kept.best)}."
    ]


def _of_other_sets(finding: Finding, analysis: Analysis) -> list[str]:
    """Say what ranks over the data sets allow to conclude about others."""
    ranks = analysis.ranks[finding.metric]
    if math.isnan(ranks.critical_difference) or math.isnan(ranks.f_p_value):
        return []
    if not ranks.rejected:
        return [f"That holds for these data sets; for others nothing: {describe_ranks(ranks)}"]
    lowest = min(ranks.average_ranks)
    near = [s for s in ranks.scores if ranks.rank_of(s) - lowest < ranks.critical_difference]
    leader = min(ranks.scores, key=ranks.rank_of)
    rest = len(near) - 1
    return [
        f"On other data sets: {leader} has the best average rank, and by ranks "
        f"{counted(rest, 'score') if rest else 'no score'} cannot be told apart from it "
        f"(Nemenyi, {ranks.alpha:g})."
    ]


def _value(finding: Finding, rival: Rival) -> str:
    return number(finding.column.scale * rival.mean, 1)


def _by_how_much(finding: Finding, rival: Rival) -> str:
    if not rival.tested:
        return ""
    scale = finding.column.scale
    ends = sorted((scale * abs(rival.low), scale * abs(rival.high)))
    significant = rival.beaten(finding.column)
    gap = f"{scale * abs(rival.difference):.1f}"
    interval = (
        f"[{ends[0]:.1f}, {ends[1]:.1f}]"
        if significant
        else f"[{signed(-scale * rival.high, 1)}, {signed(-scale * rival.low, 1)}]"
    )
    verdict = "significant" if significant else "not significant"
    count = rival.better + rival.worse + rival.undecided
    on = (
        f"; better on {rival.better} and worse on {rival.worse} of {count} test sets"
        if count > 1
        else ""
    )
    return f" (a difference of {gap} {interval} on draw 0, {verdict}{on})"


def finding_table(finding: Finding, reference: str) -> Table:
    """Show the best score beside the next ones, the reference and the text alone."""
    column, rivals = finding.column, finding.rivals
    beside = [*rivals[:_BESIDE], *(r for r in rivals[_BESIDE:] if r.score in (reference, "msp"))]
    several = finding.n_test_sets > 1
    lines = [_line(finding, rival, reference, several=several) for rival in (finding.best, *beside)]
    heads = [Head(column.title, column.sign, column.higher_is_better)]
    caption, notes = f"{describe_unit(column)}.", ""
    if finding.tested:
        heads.append(Head("Less the best", falling=column.higher_is_better))
        caption = (
            f"{describe_unit(column)}, and the difference to the best with its {100 * LEVEL:g} % "
            "interval; *: significant."
        )
        notes = (
            "Differences are of draw 0 of the shots: means over data sets, paired bootstrap over "
            "images, the intervals of the sets put together (MOVER). They say what other images of "
            "these sets would give, not other sets."
        )
        if several:
            heads.append(Head("Sets − / = / +", falling=True))
            caption += " Sets: on how many it is significantly worse, neither, or better."
            notes += " Sets are counted after Holm's correction over the scores."
    return Table(
        name="finding",
        title=f"The best scores by {column.title}",
        caption=caption,
        heads=(Head("Score"), *heads),
        lines=tuple(lines),
        notes=notes,
    )


def _line(finding: Finding, rival: Rival, reference: str, *, several: bool) -> Line:
    scale = finding.column.scale
    cells = [Cell(_value(finding, rival), value=scale * rival.mean)]
    if finding.tested and rival is finding.best:
        cells += [Cell(UNDEFINED)] * (1 + several)
    elif finding.tested:
        low, high = sorted((-scale * rival.low, -scale * rival.high))
        difference = -scale * rival.difference
        cells.append(
            Cell(
                signed(difference, 1, star=rival.beaten(finding.column)),
                f"[{signed(low, 1)}, {signed(high, 1)}]",
                value=difference,
            )
        )
        if several:
            shown = f"{rival.better} / {rival.undecided} / {rival.worse}"
            cells.append(Cell(shown, value=float(rival.better)))
    return Line(rival.score, tuple(cells), rival.score == reference, signs_of(rival.score))


# What to keep in mind.

_FEW, _LISTED = 100, 12


def cautions(results: Results) -> list[str]:
    """Return what limits the conclusions: few images, few draws, failures, missing samples."""
    sentences = []
    few = [name for name, size in results.sizes.items() if 0 < size < _FEW]
    if few:
        sentences.append(
            f"{counted(len(few), 'data set has', 'data sets have')} fewer than {_FEW} test images: "
            f"{_first_names(few)}. Their numbers are rough."
        )
    if len(results.draws) < 2 and results.rows:
        sentences.append(
            "There is one draw of the shots: how far the numbers depend on which images were "
            "drawn is not known."
        )
    failed = len(results.failures)
    if failed:
        sentences.append(
            f"{counted(failed, 'cell')} of the study failed: see below. What failed counts as "
            "undefined."
        )
    untested = [
        setting.label or "unnamed models"
        for setting in results.settings
        if not results.of(setting).samples
    ]
    if untested:
        sentences.append(
            f"Without samples no test was made, and nothing is marked: {_first_names(untested)}."
        )
    return sentences


def _first_names(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
