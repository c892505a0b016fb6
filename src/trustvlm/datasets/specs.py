"""What is known of a data set before anyone looks at a disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["DatasetSpec", "Layout", "Split"]

Split: TypeAlias = Literal["train", "val", "test"]
Layout: TypeAlias = Literal[
    "split file", "variant lists", "class folders", "numbered folders", "pickles"
]


@dataclass(frozen=True)
class DatasetSpec:
    """The facts of one set, in the directory layout of CoOp and TPT.

    Attributes
    ----------
    name, title
        Short name for commands, and the name in print.
    layout
        How images, labels and splits are laid down.
    folders
        Where the set may lie under the data root, the usual place first.
    images
        Folder of the images inside it; "" where they lie in the folder itself.
    split_folders
        Folder of each split inside it, where they have folders of their own.
    split_file
        Zhou's list of the splits; None where the set has its own.
    n_classes
        Number of classes C.
    counts
        Images in each split there is.
    subset
        Which of ImageNet's classes it has: "" for all or for a set with classes of its own.
    shots_from
        Name of the set whose training images serve as shots; mostly the set itself.
    weight, temperature
        Released hyper-parameters of TrustVLM; None where nothing was released.
    citation, terms
        What to cite, and what is said of the rights in the images. No legal advice.
    """

    name: str
    title: str
    layout: Layout
    folders: tuple[str, ...]
    n_classes: int
    counts: Mapping[Split, int] = field(hash=False)
    citation: str
    terms: str
    images: str = ""
    split_folders: Mapping[Split, str] = field(default_factory=dict, hash=False)
    split_file: str | None = None
    subset: str = ""
    shots_from: str = ""
    weight: float = 1.0
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.shots_from:
            object.__setattr__(self, "shots_from", self.name)

    @property
    def folder(self) -> str:
        """Where the set usually lies under the data root."""
        return self.folders[0]

    @property
    def splits(self) -> tuple[Split, ...]:
        """Names of the splits."""
        return tuple(self.counts)
