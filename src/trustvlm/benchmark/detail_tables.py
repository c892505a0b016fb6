"""Tables of single classes and of single cells: who gains and loses, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from trustvlm.benchmark.analysis import Analysis
from trustvlm.benchmark.gains import ClassGain, class_gains
from trustvlm.benchmark.results import Row, setting_of
from trustvlm.benchmark.table import UNDEFINED, Cell, Head, Line, Table, signed, slug
from trustvlm.report.wording import shortened

__all__ = ["failure_table", "gain_table", "gain_tables"]

# Share of the images that is accepted where classes are compared under scores of equal labels.
_COVERAGE = 0.8


def gain_table(
    gains: Sequence[ClassGain], dataset: str, first: str, second: str, coverage: float | None = None
) -> Table:
    """Gains and losses of every class when one score takes the place of another."""
    heads = ("Images", f"Well by {first}", f"Well by {second}", "Gained", "Lost", "Net")
    lines = [
        Line(
            row.name,
            (
                *(
                    Cell(str(value), value=float(value))
                    for value in (row.n, row.before, row.after, row.gained, row.lost)
                ),
                Cell(signed(row.net, 0, star=row.p_holm <= 0.05), value=float(row.net)),
            ),
        )
        for row in gains
    ]
    well = (
        "An image turns out well if its label is right."
        if coverage is None
        else f"Each score accepts the {100 * coverage:g} % of all images that it trusts most; an "
        "image turns out well if it is right and accepted, or wrong and not accepted."
    )
    return Table(
        name=f"gains-{slug(dataset)}-{slug(second)}-{slug(first)}",
        title=f"{dataset}: classes that gain and lose from {first} to {second}",
        caption=f"Images of each class on {dataset}. {well} *: gains and losses of the class "
        "differ by more than chance (exact McNemar test, Holm's correction over classes, 0.05).",
        heads=(Head("Class"), *(Head(title, falling=True) for title in heads)),
        lines=tuple(lines),
    )


def gain_tables(analysis: Analysis) -> Iterator[Table]:
    """Yield the gains from text to reference, and from reference to its star, by data set."""
    results = analysis.results
    reference = results.reference
    pairs: tuple[tuple[str, str, float | None], ...] = (
        ("msp", reference, _COVERAGE),
        (reference, f"{reference}_star", None),
    )
    for dataset in results.datasets:
        samples = results.samples_of(dataset)
        if dataset not in results.classes:
            continue
        labels, names = results.classes[dataset]
        for first, second, coverage in pairs:
            if first in samples and second in samples:
                found = class_gains(
                    samples[first], samples[second], labels, names, coverage=coverage
                )
                yield gain_table(found, dataset, first, second, coverage)


def failure_table(failures: Sequence[Row]) -> Table:
    """Cells of the study that failed, with their errors; a line for those that failed alike."""
    counts: Counter[tuple[str, str, str, str]] = Counter(
        (
            str(row["dataset"]),
            str(row["score"] or "all"),
            setting_of(row).label or UNDEFINED,
            str(row["error"]),
        )
        for row in failures
    )
    return Table(
        name="failures",
        title="Cells that failed",
        caption="They count as undefined in tables and figures. A cell is one number of shots and "
        "one draw.",
        heads=(
            Head("Data set"),
            Head("Score", text=True),
            Head("Models", text=True),
            Head("Cells", falling=True),
            Head("Error", text=True),
        ),
        lines=tuple(
            Line(
                dataset,
                (
                    Cell(score, value=score),
                    Cell(models, value=models),
                    Cell(f"{count:,}", value=float(count)),
                    Cell(shortened(error, 400), value=error[:400]),
                ),
            )
            for (dataset, score, models, error), count in counts.items()
        ),
    )
