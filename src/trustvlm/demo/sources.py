"""The photographs, who gave them away, and where each class is to be seen in them.

Only photographs with a stated licence are listed. The wheel's motorcycle, moon and page come
without one and are left out; its clock is too blurred, its cell too alone to be cut in two.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLASSES", "PHOTOGRAPHS", "DemoClass", "Photograph", "Region", "credits"]


@dataclass(frozen=True)
class Photograph:
    """One file of `skimage/data`; the licence is as stated in scikit-image's documentation."""

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


PHOTOGRAPHS = (
    Photograph("astronaut.png", "Eileen Collins", "NASA Great Images", "public domain"),
    Photograph("brick.png", "a brick wall", "CC0Textures, Bricks25", "CC0"),
    Photograph("camera.png", "a man with a camera", "Lav Varshney", "CC0"),
    Photograph("chelsea.png", "Chelsea the cat", "Stefan van der Walt", "CC0"),
    Photograph("coffee.png", "a cup of coffee", "Rachel Michetti, Pikolo Espresso Bar", "CC0"),
    Photograph(
        "coins.png",
        "Greek coins from Pompeii",
        "Brooklyn Museum Collection",
        "no known copyright restrictions",
    ),
    Photograph("grass.png", "grass", "linolafett on DeviantArt, Grass 01", "CC0"),
    Photograph("gravel.png", "gravel", "CC0Textures, Gravel04", "CC0"),
    Photograph("horse.png", "silhouette of a horse", "Andreas Preuss, openclipart", "CC0"),
    Photograph(
        "hubble_deep_field.jpg", "Hubble eXtreme Deep Field", "NASA, HubbleSite", "public domain"
    ),
    Photograph(
        "ihc.png",
        "stained glands of the colon",
        "Center for Microscopy and Molecular Imaging",
        "no known copyright restrictions",
    ),
    Photograph("retina.jpg", "the back of an eye", "Mikael Häggström, Wikimedia Commons", "CC0"),
    Photograph("rocket.jpg", "launch of DSCOVR on a Falcon 9", "SpaceX Photos", "public domain"),
    Photograph("text.png", "handwriting", "Wikipedia, Corner.png", "public domain"),
)

CLASSES = (
    DemoClass(
        "astronaut",
        "astronaut",
        shots=(Region("astronaut.png", 30, 20, 225, 512),),
        tests=(Region("astronaut.png", 227, 20, 345, 340),),
    ),
    DemoClass(
        "brick_wall",
        "brick wall",
        shots=(Region("brick.png", 0, 0, 250, 512),),
        tests=(Region("brick.png", 262, 0, 512, 512),),
    ),
    DemoClass(
        "cat",
        "cat",
        shots=(Region("chelsea.png", 0, 0, 222, 300),),
        tests=(Region("chelsea.png", 224, 0, 420, 300),),
    ),
    DemoClass(
        "coffee",
        "cup of coffee",
        shots=(Region("coffee.png", 80, 15, 285, 395),),
        tests=(Region("coffee.png", 287, 15, 480, 395),),
    ),
    DemoClass(
        "coins",
        "coins",
        shots=(Region("coins.png", 0, 0, 384, 155),),
        tests=(Region("coins.png", 0, 158, 384, 303),),
    ),
    DemoClass(
        "galaxies",
        "galaxies in space",
        shots=(Region("hubble_deep_field.jpg", 0, 0, 490, 872),),
        tests=(Region("hubble_deep_field.jpg", 510, 0, 1000, 872),),
        scale=(0.4, 0.9),
    ),
    DemoClass(
        "grass",
        "grass",
        shots=(Region("grass.png", 0, 0, 250, 512),),
        tests=(
            Region("grass.png", 262, 0, 512, 512),
            Region("camera.png", 415, 260, 512, 512),
        ),
    ),
    DemoClass(
        "gravel",
        "gravel",
        shots=(Region("gravel.png", 0, 0, 250, 512),),
        tests=(Region("gravel.png", 262, 0, 512, 512),),
    ),
    DemoClass(
        "handwriting",
        "handwriting",
        shots=(Region("text.png", 0, 0, 220, 172),),
        tests=(Region("text.png", 226, 0, 448, 172),),
    ),
    DemoClass(
        "helmet",
        "helmet",
        shots=(Region("astronaut.png", 285, 345, 395, 512),),
        tests=(Region("astronaut.png", 397, 345, 512, 512),),
    ),
    DemoClass(
        "horse",
        "horse",
        shots=(Region("horse.png", 0, 0, 200, 328),),
        tests=(Region("horse.png", 202, 0, 400, 328),),
    ),
    DemoClass(
        "lattice_tower",
        "steel lattice tower",
        shots=(Region("rocket.jpg", 0, 0, 95, 427),),
        tests=(Region("rocket.jpg", 545, 0, 640, 427),),
    ),
    DemoClass(
        "retina",
        "retina of an eye",
        shots=(Region("retina.jpg", 0, 0, 700, 1411),),
        tests=(Region("retina.jpg", 711, 0, 1411, 1411),),
    ),
    DemoClass(
        "rocket",
        "rocket",
        shots=(Region("rocket.jpg", 235, 70, 420, 245),),
        tests=(Region("rocket.jpg", 220, 250, 440, 427),),
    ),
    DemoClass(
        "space_shuttle",
        "space shuttle",
        shots=(Region("astronaut.png", 360, 0, 490, 130),),
        tests=(Region("astronaut.png", 355, 132, 500, 265),),
    ),
    DemoClass(
        "tissue",
        "tissue under a microscope",
        shots=(Region("ihc.png", 0, 0, 250, 512),),
        tests=(Region("ihc.png", 262, 0, 512, 512),),
    ),
    DemoClass(
        "tripod",
        "tripod",
        shots=(Region("camera.png", 225, 280, 400, 396),),
        tests=(Region("camera.png", 225, 398, 412, 512),),
    ),
    DemoClass(
        "wood",
        "wooden table",
        shots=(Region("coffee.png", 482, 90, 600, 400),),
        tests=(Region("coffee.png", 0, 180, 78, 400),),
    ),
)


def credits() -> list[str]:
    """Return one line for each photograph: file, what it shows, where it is from, licence.

    Examples
    --------
    >>> credits()[1]
    'brick.png: a brick wall (CC0Textures, Bricks25; CC0)'
    """
    return [f"{p.file}: {p.shows} ({p.source}; {p.licence})" for p in PHOTOGRAPHS]
