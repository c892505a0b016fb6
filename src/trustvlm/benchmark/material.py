"""What experiments work on: every data set of a study through every pair of encoders, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trustvlm
from trustvlm.benchmark.arrays import ArraySet
from trustvlm.benchmark.config import BenchConfig, SetConfig
from trustvlm.benchmark.encoding import encode_set
from trustvlm.benchmark.results import Setting
from trustvlm.benchmark.tuning import Tuning
from trustvlm.embeddings import EmbeddingStore, Progress
from trustvlm.exceptions import TrustVLMError
from trustvlm.pipeline.encoders import Encoders, describe

__all__ = ["Material", "Unavailable", "materials"]


@dataclass(frozen=True)
class Material:
    """A data set through one pair of encoders.

    Attributes
    ----------
    name
        Of the data set.
    setting
        Names of the models and the protocol; empty if nothing is known.
    support, tests
        Arrays of the images that shots are drawn from, and of each test split.
    draws
        Rows of `support` by (shots, draw), class by class in the order drawn.
    tuning
        Sets the scores' parameters.
    identity
        All that tells this material from any other, for the names of cells.
    """

    name: str
    setting: Setting
    support: ArraySet
    tests: tuple[ArraySet, ...]
    draws: Mapping[tuple[int, int], NDArray[np.int64]]
    tuning: Tuning = field(default_factory=Tuning)
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """What every row on this material says of the models."""
        identity = self.identity.get("settings", {})
        about: dict[str, Any] = {
            key: value for key, value in self.setting._asdict().items() if value
        }
        if identity:
            about["convention"] = identity["convention"]
            about["versions"] = {"trustvlm": identity["trustvlm"], "numpy": np.__version__}
            about["fingerprints"] = [identity[role]["fingerprint"] for role in ("vlm", "vision")]
        return about


@dataclass(frozen=True)
class Unavailable:
    """A data set that could not be read or encoded."""

    dataset: SetConfig
    setting: Setting
    error: TrustVLMError


def materials(
    config: BenchConfig,
    store: EmbeddingStore,
    *,
    notes: list[str],
    on_image: Progress | None = None,
) -> Iterator[Material | Unavailable]:
    """Encode the data sets of a study, one pair of encoders after another; only what is new.

    Parameters
    ----------
    config, store
        The study, already checked, and where embeddings are kept.
    notes
        Gets the warnings of the models, to show wherever their numbers are.
    on_image
        Progress, as in `encode_images`.

    Raises
    ------
    TrustVLMError
        If a model cannot be loaded.
    """
    points = list(product(config.shots, range(config.draws)))
    for models, protocol in product(config.models, config.protocols):
        encoders = Encoders.load(
            models.vlm,
            models.vision,
            protocol=protocol,
            device=config.device,
            precision=config.precision,
        )
        notes += [note for note in encoders.notes() if note not in notes]
        for dataset in config.datasets:
            setting = Setting(models.vlm, models.vision, protocol)
            try:
                encoded = encode_set(
                    dataset,
                    models,
                    encoders,
                    store,
                    points,
                    on_image,
                    validation=config.preset == "validation",
                )
            except TrustVLMError as error:
                yield Unavailable(dataset, setting, error)
                continue
            tuning = Tuning(config.preset, config.parameters_of(dataset), encoded.validation)
            yield Material(
                name=dataset.name,
                setting=setting,
                support=encoded.support,
                tests=encoded.tests,
                draws=encoded.draws,
                tuning=tuning,
                identity={
                    "settings": _settings(config, encoders, protocol),
                    "images": encoded.digest,
                    "name": dataset.name,
                    "parameters": tuning.parameters,
                    **tuning.identity(),
                },
            )


def _settings(config: BenchConfig, encoders: Encoders, protocol: str) -> dict[str, Any]:
    return {
        "trustvlm": trustvlm.__version__,
        "vlm": dict(describe(encoders.vlm)),
        "vision": dict(describe(encoders.vision)),
        "logit_scale": float(encoders.vlm.logit_scale),
        "protocol": protocol,
        "precision": config.precision,
        "convention": config.convention,
    }
