"""What to do with a verdict as long as no threshold has been certified."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNCALIBRATED_RULE", "accept_on_agreement"]

UNCALIBRATED_RULE = (
    "uncalibrated: accept if the image resembles the example images of the predicted class more "
    "than those of any other class, and no less than example images do, otherwise review; no error "
    "rate is promised"
)


def accept_on_agreement(
    prediction: NDArray[np.int64],
    nearest: NDArray[np.int64],
    unlike: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Accept where text and image evidence name the same class.

    Parameters
    ----------
    prediction
        `(n,)` predicted class indices.
    nearest
        `(n,)` class of the most similar prototype, -1 where there are no prototypes.
    unlike
        `(n,)` whether an image resembles no class at all; these are never accepted.

    Returns
    -------
    ndarray
        `(n,)` bool. A class without example images is never accepted: nothing verifies it.

    Examples
    --------
    >>> accept_on_agreement(np.array([0, 1, 2]), np.array([0, 2, -1]))
    array([ True, False, False])
    """
    agrees: NDArray[np.bool_] = prediction == nearest
    return agrees if unlike is None else agrees & ~unlike
