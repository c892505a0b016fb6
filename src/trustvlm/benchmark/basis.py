"""What numbers rest on, in a sentence: shots, draws, data sets, images, convention."""

from __future__ import annotations

from collections.abc import Iterable

from trustvlm.benchmark.results import Row
from trustvlm.report.wording import counted

__all__ = ["basis_words", "convention_sentence", "listed"]

_CONVENTIONS = {
    "exact": "ties count with their expected value",
    "trustvlm": "the rules of the paper's released script",
}


def basis_words(rows: Iterable[Row], convention: str) -> str:
    """Say what the numbers of some rows rest on; for captions.

    Examples
    --------
    >>> about = {"score": "msp", "shots": 16, "n": 50}
    >>> rows = [{**about, "dataset": d, "draw": i} for d in ("pets", "cars") for i in (0, 1)]
    >>> basis_words(rows, "exact").partition(" Convention")[0]
    '16 shots per class; 2 draws of the shots; 2 data sets with 50 test images each.'
    """
    rows = list(rows)
    shots = sorted({int(row["shots"]) for row in rows})
    parts = [
        f"{listed([f'{n:,}' for n in shots])} shot{'' if shots == [1] else 's'} per class",
        _draws({int(row["draw"]) for row in rows}),
        _images(rows),
    ]
    return f"{'; '.join(filter(None, parts))}. {convention_sentence(convention)}"


def convention_sentence(convention: str) -> str:
    """Name the convention of the metrics, and what it means.

    Examples
    --------
    >>> convention_sentence("exact")
    'Convention exact: ties count with their expected value.'
    """
    return f"Convention {convention}: {_CONVENTIONS[convention]}."


def listed(words: list[str]) -> str:
    """Join words with commas and an `and`.

    Examples
    --------
    >>> listed(["1", "2", "16"])
    '1, 2 and 16'
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _images(rows: list[Row]) -> str:
    sizes: dict[str, int] = {}
    for row in rows:
        name = str(row["dataset"])
        sizes[name] = max(sizes.get(name, 0), int(row.get("n") or 0))
    known = [size for size in sizes.values() if size]
    sets = counted(len(sizes), "data set")
    if not known:
        return sets
    if len(known) == 1:
        return f"{sets} with {counted(known[0], 'test image')}"
    if min(known) == max(known):
        return f"{sets} with {counted(known[0], 'test image')} each"
    return f"{sets} with {min(known):,} to {max(known):,} test images each, {sum(known):,} in all"


def _draws(draws: set[int]) -> str:
    if len(draws) == 1:
        return f"draw {min(draws)} of the shots"
    return f"{counted(len(draws), 'draw')} of the shots"
