"""What a bulk job came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["BulkSummary"]


@dataclass(frozen=True)
class BulkSummary:
    """Counts over all parts of a job, and the speed of the last run.

    Attributes
    ----------
    output
        The folder with the verdicts.
    n_images, n_now
        Images in all, and those of this run; the others had been done before.
    decisions, errors
        Counts by decision, and of the errors by kind (a key of `images.KINDS`).
    seconds
        Duration of this run, with loading the model.
    notes
        What to know of the models, and what the decisions rest on.

    Examples
    --------
    >>> summary = BulkSummary(Path("out"), 30, 20, {"accept": 29, "error": 1}, {"empty": 1}, 4.0)
    >>> print(summary)
    30 images in out: 29 accept, 0 review, 1 error (1 empty); 20 now, 5.0 images/s
    """

    output: Path
    n_images: int
    n_now: int
    decisions: Mapping[str, int]
    errors: Mapping[str, int]
    seconds: float
    notes: tuple[str, ...] = field(default=())

    @property
    def images_per_second(self) -> float:
        """Speed of this run; 0 if nothing was left to do."""
        return self.n_now / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "images": self.n_images,
            "images_now": self.n_now,
            "decisions": {
                name: self.decisions.get(name, 0) for name in ("accept", "review", "error")
            },
            "errors": dict(sorted(self.errors.items())),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 3),
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.to_dict()["decisions"].items())
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(self.errors).most_common())
        now = f"{self.n_now} now, {self.images_per_second:.1f} images/s" if self.n_now else ""
        return (
            f"{self.n_images} images in {self.output}: {counts}{f' ({kinds})' if kinds else ''}; "
            f"{now or 'nothing was left to do'}"
        )
