"""A fitted offline model and photographs, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Command
from pictures import write_class_folders
from trustvlm import TrustVLM


@pytest.fixture
def trustvlm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process."""
    return Command(capsys, monkeypatch)


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with four examples each."""
    return write_class_folders(tmp_path_factory.mktemp("cli") / "shots")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with five other pictures each."""
    return write_class_folders(tmp_path_factory.mktemp("cli") / "photos", per_class=5, seed=7)


@pytest.fixture(scope="session")
def fitted(shots: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .trust directory made with the offline models."""
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    path = tmp_path_factory.mktemp("cli") / "colours.trust"
    TrustVLM(vlm="offline", vision="offline").fit(shots).save(path)
    return path
