"""What rows are about, in numbers and names: for the head and the foot of a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import trustvlm
from trustvlm.benchmark.basis import convention_sentence
from trustvlm.benchmark.results import Row
from trustvlm.report.wording import counted

__all__ = ["Scope"]


@dataclass(frozen=True)
class Scope:
    """Scores, data sets, shots and draws of some rows, and how many images were tested.

    Examples
    --------
    >>> about = {"score": "msp", "shots": 16, "draw": 0, "n": 50}
    >>> scope = Scope.of([{**about, "dataset": "pets"}, {**about, "dataset": "cars"}])
    >>> scope.datasets, scope.images
    (('pets', 'cars'), 100)
    >>> scope.tiles()[1]
    ('2', 'data sets, 100 images')
    """

    scores: tuple[str, ...]
    datasets: tuple[str, ...]
    images: int
    shots: tuple[int, ...]
    draws: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Scope:
        """Gather what rows are about."""
        scores: dict[str, None] = {}
        sizes: dict[str, int] = {}
        shots, draws = set(), set()
        for row in rows:
            if row["score"] is not None:
                scores[str(row["score"])] = None
            name = str(row["dataset"])
            sizes[name] = max(sizes.get(name, 0), int(row.get("n") or 0))
            shots.add(int(row["shots"]))
            draws.add(int(row["draw"]))
        return cls(
            tuple(scores), tuple(sizes), sum(sizes.values()), tuple(sorted(shots)), len(draws)
        )

    def tiles(self) -> list[tuple[str, str]]:
        """Return values and what they count, for the head of a page."""
        sets, draws = (
            counted(n, noun).partition(" ")[2]
            for n, noun in ((len(self.datasets), "data set"), (self.draws, "draw"))
        )
        return [
            (str(len(self.scores)), "scores compared"),
            (
                str(len(self.datasets)),
                f"{sets}, {counted(self.images, 'image')}" if self.images else sets,
            ),
            (", ".join(map(str, self.shots)), "shots per class"),
            (str(self.draws), f"{draws} of the shots"),
        ]

    def facts(self, convention: str, *further: tuple[str, str]) -> list[tuple[str, str]]:
        """Return terms and what they are here, for the foot of a page."""
        return [
            ("data sets", ", ".join(self.datasets)),
            ("scores", ", ".join(self.scores)),
            ("shots per class", ", ".join(map(str, self.shots))),
            ("draws of the shots", str(self.draws)),
            ("metrics", convention_sentence(convention)),
            *further,
            ("software", f"trustvlm {trustvlm.__version__}"),
        ]
