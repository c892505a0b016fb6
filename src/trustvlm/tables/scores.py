"""What tables say of the scores themselves: signs after a name, and what each score sees."""

from __future__ import annotations

from collections.abc import Iterable

from trustvlm.scores import get, names
from trustvlm.tables.table import Cell, Head, Line, Table

# What the signs after the name of a score say of it.
CORRECTS, WHOLE_BATCH = "†", "‡"
SIGNS = {
    CORRECTS: "may change the predicted label",
    WHOLE_BATCH: "sees all images of the test set at once, without labels",
}


def signs_of(score: str) -> str:
    """Return the signs of a score, none for one that is not registered.

    Examples
    --------
    >>> signs_of("msp"), signs_of("trustvlm_star"), signs_of("auto_adapted_star")
    ('', '†', '†‡')
    """
    if score not in names():
        return ""
    facts = get(score)
    return CORRECTS * facts.corrects + WHOLE_BATCH * facts.whole_batch


def sight_table(scores: Iterable[str] | None = None) -> Table:
    """Return what scores see, by their registration; by default all that are registered.

    Examples
    --------
    >>> table = sight_table()
    >>> [head.title for head in table.heads][:3], table.lines[0].label
    (['Score', 'text', 'shots'], 'msp')
    """
    heads = [*get(next(iter(names()))).sees, "label"]
    lines = []
    for name in names() if scores is None else scores:
        score = get(name)
        cells = [*score.sees.values(), "may change" if score.corrects else "the VLM's"]
        shown = ["" if cell == "no" else cell for cell in cells]
        lines.append(Line(name, tuple(Cell(text, value=text) for text in shown)))
    return Table(
        name="sight",
        title="What each score sees",
        caption="What each score looks at; empty: not seen.",
        notes="The VLM's image space: images are compared with images there. The vision encoder is "
        "the second one, which may be the VLM's own. The whole batch: all images at once, without "
        "labels, so that a verdict depends on the others.",
        heads=(Head("Score"), *(Head(head, text=True) for head in heads)),
        lines=tuple(lines),
    )
