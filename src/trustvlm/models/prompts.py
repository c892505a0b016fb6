"""Prompt templates: from class names to one text embedding per class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustvlm.exceptions import InputError
from trustvlm.images.classes import normal_form
from trustvlm.models.base import VisionLanguageModel

_SLOT = "{}"
# Shorter than this, a mean of unit vectors is rounding noise.
_CANCELLED = 1e-6
# Two texts nearer than this are one to the model. Of 82,000 pairs of classes of DTD, SUN397,
# Caltech and CIFAR-10 by CLIP ViT-B/32 one is: 58 % of its images are told apart, of the eight
# pairs from 0.95 to 0.97 81 to 94 % (benchmarks/class_texts.py).
ALIKE = 0.97
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


def text_problems(
    vlm: VisionLanguageModel,
    labels: Sequence[str],
    class_names: Sequence[str],
    templates: Sequence[str],
    embeddings: NDArray[np.float32],
) -> list[str]:
    """Say which classes the text cannot tell apart, and which prompts the model cuts.

    Parameters
    ----------
    vlm
        Whose text encoder made the embeddings; what it cuts is reported if it has `cut_texts`.
    labels
        What verdicts call the C classes.
    class_names, templates
        As in `class_embeddings`.
    embeddings
        `(C, e)` unit rows.

    Returns
    -------
    list of str
        Up to three sentences; none if there is nothing to say.
    """
    problems = []
    forms = [normal_form(name) for name in class_names]
    shared = [label for label, form in zip(labels, forms, strict=True) if forms.count(form) > 1]
    if shared:
        problems.append(
            f"classes that share a name: {_some([repr(s) for s in shared])}: the text cannot tell "
            "these apart, only the examples can"
        )
    pairs = [
        f"'{labels[i]}' and '{labels[j]}' ({cosine:.3f})"
        for i, j, cosine in _alike(np.asarray(embeddings, dtype=np.float64))
        if forms[i] != forms[j]
    ]
    if pairs:
        problems.append(
            f"classes whose texts are nearly the same to the model (cosine over {ALIKE}): "
            f"{_some(pairs)}: only examples can tell these apart. Use other names, or one class "
            "for both"
        )
    cut_texts = getattr(vlm, "cut_texts", None)
    if cut_texts is not None:
        prompts = fill(templates, class_names)
        cut = set(cut_texts(list(dict.fromkeys(text for texts in prompts for text in texts))))
        of = [
            f"'{label if len(label) < 60 else label[:57] + '...'}'"
            for label, texts in zip(labels, prompts, strict=True)
            if not cut.isdisjoint(texts)
        ]
        if of:
            problems.append(
                f"prompts of {_some(of)} are longer than the model reads: the rest of these texts "
                "is cut off. Use shorter names or templates"
            )
    return problems


def _alike(rows: NDArray[np.float64], block: int = 1024) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of rows whose cosine is over `ALIKE`, the first one first."""
    for start in range(0, len(rows), block):
        cosines = rows[start : start + block] @ rows.T
        for i, j in np.argwhere(cosines > ALIKE):
            if start + i < j:
                yield int(start + i), int(j), float(cosines[i, j])


def _some(items: Sequence[str], most: int = 8) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


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
