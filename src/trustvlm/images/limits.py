"""How large or small an image may be before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from trustvlm.exceptions import InputError

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds that an image must keep, checked before any pixel is decoded.

    Parameters
    ----------
    max_pixels
        Width times height as the file's header states them. A few hundred bytes can claim
        gigapixels (a decompression bomb), so the claim is checked, not the outcome.
    max_bytes
        Size of the file.
    min_side
        Shorter side in pixels. Below 8 pixels, one block of a JPEG, there is nothing to
        recognise: such files are tracking pixels, spacers and failed thumbnails, and a model
        would nevertheless give them a confident label. CIFAR's 32 and the 8 of scikit-learn's
        digits pass.

    Raises
    ------
    InputError
        If a bound is not a positive whole number.

    Examples
    --------
    >>> Limits(max_pixels=1_000_000).min_side
    8
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 256 * 2**20
    min_side: int = 8

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "min_side"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"Expected `{name}` to be a positive whole number, but got {value!r}."
                )


DEFAULT_LIMITS = Limits()
