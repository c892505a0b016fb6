"""Small .npz files as `bench arrays` reads them."""

from __future__ import annotations

import numpy as np


def write_arrays(path, seed, n=60, n_classes=3, d=8, e=5, **changes):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = np.random.default_rng(99).normal(size=(n_classes, d))
    arrays = {
        "logits": rng.normal(size=(n, n_classes)).astype(np.float32)
        + 2 * np.eye(n_classes)[labels],
        "features": (centres[labels] + rng.normal(size=(n, d))).astype(np.float16),
        "labels": labels.astype(np.int32),
        "class_names": np.array(["cat", "dog", "bird"][:n_classes]),
        "image_embeddings": rng.normal(size=(n, e)).astype(np.float16),
        "text_embeddings": np.random.default_rng(98).normal(size=(n_classes, e)),
    }
    arrays.update(changes)
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path
