"""In what a set on a disk differs from the published one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from trustvlm.datasets.listing import Listing
from trustvlm.datasets.specs import DatasetSpec, Split
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images.references import shown

__all__ = ["deviations", "report_deviations"]


def deviations(spec: DatasetSpec, split: Split, listing: Listing) -> tuple[str, ...]:
    """Return in what a split differs from the published one, as parts of a sentence."""
    found = []
    if len(listing.images) != spec.counts[split]:
        found.append(f"expected {spec.counts[split]} images, but found {len(listing.images)}")
    if len(listing.class_names) != spec.n_classes:
        found.append(f"expected {spec.n_classes} classes, but found {len(listing.class_names)}")
    if listing.missing:
        found.append(_missing(listing))
    return (*found, *listing.remarks)


def _missing(listing: Listing) -> str:
    """Say what is not there."""
    first = listing.missing[0]
    if first.endswith("/"):
        all_of_them = f"{len(listing.class_ids)} class folders"
    else:
        all_of_them = f"{len(listing.images)} images"
    return f"{len(listing.missing)} of {all_of_them} missing or empty, such as {shown(first)!r}"


def report_deviations(
    spec: DatasetSpec, split: Split, folder: Path, found: Sequence[str], *, strict: bool
) -> None:
    """Warn of deviations, or refuse them."""
    if not found:
        return
    message = (
        f"{spec.title}, {split}, in {shown(folder)!r}: {'; '.join(found)}. Numbers will not be "
        "comparable with published ones."
    )
    if strict:
        raise InputError(message)
    warnings.warn(message, TrustVLMWarning, stacklevel=3)
