"""What a user should know about the examples of a fitted model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import TrustVLMWarning

if TYPE_CHECKING:
    from trustvlm.pipeline.model import TrustVLM

__all__ = ["warn_about_shots"]


def warn_about_shots(model: TrustVLM) -> None:
    """Warn of unreadable shots, classes that share a name, and those with few shots or none."""
    counts = model.bank_.counts_
    for failure in model.shot_failures_:
        warnings.warn(f"shot left out: {failure.error}", TrustVLMWarning, stacklevel=5)
    names = np.asarray(model.classes_.labels)
    shared = names != np.asarray(model.classes_.names)
    if shared.any():
        warnings.warn(
            f"classes that share a name: {_listed(names[shared])}: the text cannot tell these "
            "apart, only the examples can",
            TrustVLMWarning,
            stacklevel=5,
        )
    if (counts == 0).any():
        warnings.warn(
            f"no example images of {_listed(names[counts == 0])}: "
            "only the text supports these labels",
            TrustVLMWarning,
            stacklevel=5,
        )
    wanted = model.shots_per_class_
    if wanted is not None and ((counts > 0) & (counts < wanted)).any():
        few = (counts > 0) & (counts < wanted)
        warnings.warn(
            f"fewer than {wanted} example images of {_listed(names[few])}: all are used",
            TrustVLMWarning,
            stacklevel=5,
        )


def _listed(names: NDArray[Any], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more classes"
