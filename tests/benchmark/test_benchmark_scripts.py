"""The scripts under benchmarks/ are run by hand: they must at least go on loading."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_script_can_be_loaded():
    """In one process of its own: scripts set threads and change constants as they are loaded."""
    load = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    names = sorted(file.stem for file in FOLDER.glob("*.py"))
    assert len(names) > 30
    done = subprocess.run(
        [sys.executable, "-c", load, *names], cwd=FOLDER, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
