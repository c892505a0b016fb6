"""Prompt templates: from class names to one text embedding per class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.models.base import VisionLanguageModel

_SLOT = "{}"
# Shorter than this, a mean of unit vectors is rounding noise.
_CANCELLED = 1e-6
TextEncoder = Callable[[Sequence[str]], NDArray[np.float32]]


def read_prompts(prompt: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Read one template, several (an ensemble), or a text file with one a line.

    A template holds `{}`, or `{name}`, exactly once, where the class name goes. A text without it
    must be the path of a file; its empty lines and lines that begin with `#` are skipped.

    Raises
    ------
    InputError
        If a template has no slot or several, or there is no template.

    Examples
    --------
    >>> read_prompts("a photo of a {name}.")
    ('a photo of a {}.',)
    """
    if isinstance(prompt, os.PathLike) or (isinstance(prompt, str) and "{" not in prompt):
        lines = _lines(Path(prompt))
    elif isinstance(prompt, str):
        lines = [prompt]
    else:
        lines = list(prompt)
    templates = tuple(dict.fromkeys(line.replace("{name}", _SLOT) for line in lines))
    if not templates:
        raise InputError(f"Expected at least one prompt template, but {prompt!r} holds none.")
    for template in templates:
        if template.count(_SLOT) != 1:
            raise InputError(
                f"Expected a prompt template to hold {{}} once, where the class name goes, "
                f"but got {template!r}."
            )
    return templates


def fill(templates: Sequence[str], class_names: Sequence[str]) -> list[list[str]]:
    """Return the prompts of each class; underscores in names become spaces.

    Examples
    --------
    >>> fill(["a photo of a {}."], ["golden_retriever"])
    [['a photo of a golden retriever.']]
    """
    names = [name.replace("_", " ") for name in class_names]
    return [[template.replace(_SLOT, name) for template in templates] for name in names]


def class_embeddings(
    vlm: VisionLanguageModel,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    encode: TextEncoder | None = None,
) -> NDArray[np.float32]:
    """Embed every class once: the normalised mean of its normalised prompt embeddings.

    Parameters
    ----------
    vlm
        The model whose text encoder is used.
    class_names
        C names.
    templates
        Templates with `{}`; with a single one this is its plain normalised embedding.
    encode
        Replaces `vlm.encode_texts`, for instance by a stored version of it.

    Returns
    -------
    ndarray
        `(C, e)` float32 unit rows.

    Raises
    ------
    InputError
        If the model gives a vector without direction, or the prompts of a class cancel out.

    Notes
    -----
    Ensembling in embedding space: Radford et al. 2021, section 3.1.4.
    """
    prompts = fill(templates, class_names)
    distinct = list(dict.fromkeys(text for texts in prompts for text in texts))
    vectors = (encode or vlm.encode_texts)(distinct).astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    sound = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
    if not sound.all():
        raise InputError(
            f"The text encoder of {vlm.identity.spec} gave a vector without direction for "
            f"{distinct[int(np.argmin(sound))]!r}."
        )
    vectors /= norms
    row = {text: i for i, text in enumerate(distinct)}
    means = np.stack([vectors[[row[text] for text in texts]].mean(axis=0) for texts in prompts])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if (lengths < _CANCELLED).any():
        raise InputError(
            f"The prompts of the class {class_names[int(lengths.argmin())]!r} cancel each other: "
            "the mean of their embeddings has no direction."
        )
    rows: NDArray[np.float32] = (means / lengths).astype(np.float32)
    return rows


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Expected a prompt template with {{}} for the class name, or a text file of them, "
            f"but got {str(path)!r}, which cannot be read as a file ({error})."
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
