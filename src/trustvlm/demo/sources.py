"""The photographs, who gave them away, and where each class is to be seen in them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Photograph:
    """One file of `skimage/data`: what it shows, where it is from, and its stated licence."""

    file: str
    shows: str
    source: str
    licence: str


@dataclass(frozen=True)
class Region:
    """A rectangle of a photograph in pixels; right and bottom are outside."""

    file: str
    left: int
    top: int
    right: int
    bottom: int

    def intersects(self, other: Region) -> bool:
        """Tell whether two rectangles share a pixel of one photograph.

        Examples
        --------
        >>> Region("a.png", 0, 0, 10, 10).intersects(Region("a.png", 9, 9, 20, 20))
        True
        >>> Region("a.png", 0, 0, 10, 10).intersects(Region("a.png", 10, 0, 20, 10))
        False
        """
        return (
            self.file == other.file
            and self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class DemoClass:
    """A class: its folder, its name in prompts, and where shots and test crops are cut.

    `scale` bounds the size of a crop, as a fraction of the largest that fits into its region.
    """

    folder: str
    name: str
    shots: tuple[Region, ...]
    tests: tuple[Region, ...]
    scale: tuple[float, float] = (0.7, 1.0)


@cache
def read_photographs() -> tuple[Photograph, ...]:
    """Return every photograph that the demonstration uses."""
    return tuple(Photograph(**facts) for facts in _tables()["photograph"])


@cache
def read_classes() -> tuple[DemoClass, ...]:
    """Return the classes, in the order of their folders' names."""
    return tuple(
        DemoClass(
            folder=facts["folder"],
            name=facts["name"],
            shots=tuple(Region(**region) for region in facts["shots"]),
            tests=tuple(Region(**region) for region in facts["tests"]),
            scale=tuple(facts.get("scale", DemoClass.scale)),
        )
        for facts in _tables()["class"]
    )


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("photographs.toml").read_text("utf-8"))


def credits() -> list[str]:
    """Return one line for each photograph: file, what it shows, where it is from, licence.

    Examples
    --------
    >>> credits()[1]
    'camera.png: a man with a camera (Lav Varshney; CC0)'
    """
    return [f"{p.file}: {p.shows} ({p.source}; {p.licence})" for p in read_photographs()]
