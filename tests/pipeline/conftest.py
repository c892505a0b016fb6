"""What several tests of the pipeline share."""

from __future__ import annotations

import pytest

from trustvlm.embeddings import EmbeddingStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """A store of the module's own, so that its tests encode each picture once."""
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    return EmbeddingStore(tmp_path_factory.mktemp("store") / "store.sqlite")
