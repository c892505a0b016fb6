"""The photographs, who gave them away, and where each class is to be seen in them.

Only photographs that are stated to be free are listed: by scikit-image's documentation, for the
motorcycle by its own source. The wheel's moon and page are not, and are left out.

Classes, their names and their regions were chosen by looks and so that a bit more than half of
the labels of the offline vision-language model are right: brick walls, tissue and handwriting,
which it almost never names, are left out. Nothing was chosen by what a confidence score makes
of it. Shots and test crops come from regions that share no pixel; mostly they show two parts of
one object, or two pieces of one texture, which is easier than two photographs would be.
"""

from __future__ import annotations

from dataclasses import dataclass


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


PHOTOGRAPHS = (
    Photograph("astronaut.png", "Eileen Collins", "NASA Great Images", "public domain"),
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
        "motorcycle_left.png",
        "a motorcycle in a garage",
        "Middlebury stereo 2014, Scharstein et al., GCPR 2014",
        "use and publication permitted, citation requested",
    ),
    Photograph("retina.jpg", "the back of an eye", "Mikael Häggström, Wikimedia Commons", "CC0"),
    Photograph("rocket.jpg", "launch of DSCOVR on a Falcon 9", "SpaceX Photos", "public domain"),
)

CLASSES = (
    DemoClass(
        "astronaut",
        "astronaut in a space suit",
        shots=(Region("astronaut.png", 25, 215, 275, 480),),
        tests=(Region("astronaut.png", 75, 20, 345, 210),),
        scale=(0.8, 1.0),
    ),
    DemoClass(
        "cardboard_box",
        "cardboard box",
        shots=(Region("motorcycle_left.png", 520, 20, 710, 105),),
        tests=(Region("motorcycle_left.png", 612, 180, 700, 264),),
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
        "outer space",
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
        "motorcycle",
        "motorcycle",
        shots=(Region("motorcycle_left.png", 90, 140, 385, 410),),
        tests=(Region("motorcycle_left.png", 390, 110, 690, 460),),
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
        "tripod",
        "tripod",
        shots=(Region("camera.png", 225, 280, 400, 396),),
        tests=(Region("camera.png", 225, 398, 412, 512),),
    ),
    DemoClass(
        "wood",
        "wood",
        shots=(Region("coffee.png", 482, 90, 600, 400),),
        tests=(Region("coffee.png", 0, 180, 78, 400),),
    ),
)


def credits() -> list[str]:
    """Return one line for each photograph: file, what it shows, where it is from, licence.

    Examples
    --------
    >>> credits()[1]
    'camera.png: a man with a camera (Lav Varshney; CC0)'
    """
    return [f"{p.file}: {p.shows} ({p.source}; {p.licence})" for p in PHOTOGRAPHS]
