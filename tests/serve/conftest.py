"""A fitted offline model, and uploads, for the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pictures import write_class_folders
from service import client_of
from trustvlm import TrustVLM


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with four examples each."""
    return write_class_folders(tmp_path_factory.mktemp("serve") / "shots")


@pytest.fixture(scope="session")
def colours(shots: Path) -> Path:
    """A .trust directory made with the offline models, calibrated."""
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    path = shots.parent / "colours.trust"
    checked = write_class_folders(shots.parent / "checked", per_class=12, seed=9)
    model = TrustVLM(vlm="offline", vision="offline").fit(shots)
    model.calibrate(checked, risk=0.3).save(path)
    return path


@pytest.fixture(scope="session")
def client(colours: Path) -> Iterator[object]:
    """A client of a service with that model."""
    with client_of(colours) as client:
        yield client
