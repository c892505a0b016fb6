"""Settings of the scores in a study: untuned, or selected on the shots or on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trustvlm.benchmark.dataset import ArraySet
from trustvlm.exceptions import InputError
from trustvlm.pipeline.select import (
    SELECTABLE,
    TEMPERATURES,
    WEIGHTS,
    Selection,
    free_settings,
    select_by_holding_out,
    select_on,
)
from trustvlm.scores import Evidence

PRESETS = ("untuned", "paper", "loo", "validation")


@dataclass(frozen=True)
class Tuned:
    """The settings of one score with one draw of the shots.

    Attributes
    ----------
    parameters
        What is passed to it; its defaults fill up the rest.
    selection
        How some of them were selected; None if none was.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    selection: Selection | None = None


@dataclass(frozen=True)
class Tuning:
    """How a study sets the parameters of its scores.

    Attributes
    ----------
    by
        One of `PRESETS`. `loo` selects weight and temperature on the drawn shots, each held out;
        `validation` on the validation images; the others select nothing.
    parameters
        A score's own parameters by its name: these are never selected.
    validation
        Labelled images that are neither shots nor tests.
    """

    by: str = "untuned"
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    validation: ArraySet | None = None

    def __post_init__(self) -> None:
        if self.by not in PRESETS:
            raise InputError(f"Expected `preset` among {', '.join(PRESETS)}, but got {self.by!r}.")
        if self.by == "validation" and self.validation is None:
            raise InputError(
                "Expected validation images to select on, but got none; `loo` selects on the shots."
            )

    @property
    def selects(self) -> bool:
        """Whether anything is selected."""
        return self.by in ("loo", "validation")

    def identity(self) -> dict[str, Any]:
        """Return what of the selection can change a number, besides parameters and images."""
        candidates = {"weight": WEIGHTS, "temperature": TEMPERATURES}
        return {"selected": [self.by, candidates]} if self.selects else {}

    def settings(self, scores: Sequence[str], shots: Evidence) -> dict[str, Tuned]:
        """Select anew for one draw of the shots; return the settings of each score."""
        selected: dict[str, Selection] = {}
        settings = {}
        for name in scores:
            given = dict(self.parameters.get(name, {}))
            chosen = None
            if self.selects and free_settings(name, given):
                # *(F) takes what suits *: no need to find that twice.
                key = repr((SELECTABLE[name], given.get("weight"), given.get("temperature")))
                if key not in selected:
                    selected[key] = self._select(SELECTABLE[name], shots, given)
                chosen = selected[key]
            settings[name] = Tuned({**(chosen.parameters if chosen else {}), **given}, chosen)
        return settings

    def _select(self, name: str, shots: Evidence, given: Mapping[str, Any]) -> Selection:
        if self.by == "loo":
            return select_by_holding_out(name, shots, fixed=given)
        assert self.validation is not None  # noqa: S101 -- checked when it was made
        seen = self.validation
        evidence = shots.with_images(logits=seen.logits, features=seen.features)
        return select_on(name, evidence, seen.labels, fixed=given)
