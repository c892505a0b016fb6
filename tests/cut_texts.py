"""Which texts a model cuts, by what it makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_cut_texts(encoder: Any, word: str, most: int = 600) -> None:
    """Add a word at a time: once it changes nothing any more, the rest is cut, and said to be."""
    texts = [f"a photo of a {word * n}".strip() for n in range(1, most)]
    named = set(encoder.cut_texts(texts))
    said = [text in named for text in texts]
    first = said.index(True)
    assert said == [False] * first + [True] * (len(texts) - first)
    fits, cut, longer = encoder.encode_texts([texts[first - 1], texts[first], texts[first + 1]])
    shorter = encoder.encode_texts([texts[first - 2]])[0]
    scale = np.abs(fits).max()
    np.testing.assert_allclose(longer, cut, atol=1e-5 * scale)
    assert np.abs(fits - shorter).max() > 1e-4 * scale
    assert encoder.cut_texts([]) == []
